"""Ten thousand tiny inputs: memory stays flat in the driver and bounded in the workers."""

import os
import threading
from pathlib import Path

import psutil
import pytest

from cluster.storage import Storage
from tests.support.hostile import encoded, picture
from tests.support.stylize_case import Case

COUNT = 10_000
MIB = 1 << 20


class MemorySampler(threading.Thread):
    """Resident memory of this process and of its stylizer actors, once a second. MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.driver: list[float] = []
        self.actors: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(1.0):
            self.driver.append(psutil.Process(os.getpid()).memory_info().rss / MIB)
            for process in psutil.process_iter(["name", "cmdline", "memory_info"]):
                if "Stylizer" in " ".join(process.info["cmdline"] or []):
                    self.actors.append(process.info["memory_info"].rss / MIB)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("ray_cluster")
def test_ten_thousand_inputs_in_flat_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    data = encoded(picture(16, 16), "PNG")
    folder = Path(case.root.path) / "in"
    folder.mkdir(parents=True)
    for i in range(COUNT):
        (folder / f"{i:05d}.png").write_bytes(data)
    sampler = MemorySampler()
    sampler.start()
    tally = case.run(encode_steps=10, decode_steps=5, batch_size=32)
    sampler.stopped.set()
    sampler.join()
    assert tally.counts()["done"] == COUNT
    third = len(sampler.driver) // 3  # the first third is warm-up
    early, late = max(sampler.driver[third : 2 * third]), max(sampler.driver[2 * third :])
    with capsys.disabled():
        print(f"\ndriver {early:.0f} MiB in the middle, {late:.0f} MiB at the end; "
              f"largest actor {max(sampler.actors):.0f} MiB")  # fmt: skip
    assert late - early < 100
    assert max(sampler.actors) < 2000
