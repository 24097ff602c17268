"""A catalog of a thousand styles of adapters, a hundred of which are asked for at once."""

import hashlib
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from catalog.register import _row
from catalog.schema import NewStyle, StyleVersion
from catalog.store import StyleCatalog
from catalog.tables import Commit
from cluster.storage import Storage
from jobs.streaming.stylizing import Shelf, Stylizer
from jobs.streaming.variants import Variant
from osasis.base import load_base
from osasis.checkpoint import ADAPTER_FORMAT, Style
from osasis.settings import train_config
from osasis.style_training import StyleTraining
from tests.support.in_process import InProcess
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE

STYLES, ASKED, TRAINED, PICTURES = 1000, 100, 4, 16


def trained(case: Case) -> list[bytes]:
    """A few; the thousand are copies of them."""
    base, files = load_base(case.base), []
    settings = {"adapter_rank": 4, "spn_width": 16, "learning_rate": 1e-2, "iterations": 1, "content": {"count": 2}}
    for seed in range(TRAINED):
        image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        config = train_config("official", base.spec.train_defaults, settings)
        training = StyleTraining(base, image, config, photo=-image)
        list(training.run())
        files.append(training.checkpoint("copied", "official"))
    return files


def fill(case: Case) -> None:
    """Registers all in one commit, each with a file of its own; every tenth is tagged ``asked``."""
    files, catalog, fingerprint = trained(case), StyleCatalog.open(case.root), load_base(case.base).fingerprint
    rows = []
    for i in range(STYLES):
        data, name = files[i % TRAINED], f"styles/adapter-{i:04d}.safetensors"
        case.root.write_bytes(name, data)
        new = NewStyle(
            style_id=f"adapter-{i:04d}", base_name="tiny", base_fingerprint=fingerprint,
            checkpoint_uri=case.root.child_uri(name), checkpoint_sha256=hashlib.sha256(data).hexdigest(),
            checkpoint_bytes=len(data), checkpoint_format=ADAPTER_FORMAT, preset="official", train_config={},
            reference_uri="none", reference_sha256="0" * 64, run_id="test", train_seconds=0, device="cpu",
            tags=["asked"] if i % (STYLES // ASKED) == 0 else [],
        )  # fmt: skip
        rows.append(_row(StyleVersion.of(new, 1), case.root))
    catalog.tables.rows.append(lambda _: Commit(rows), "register a thousand styles in")


@pytest.mark.slow
def test_a_hundred_of_a_thousand_adapters_load_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=0)
    fill(case)
    case.add_pictures(PICTURES)
    loading: list[float] = []
    runs: list[InProcess] = []
    load = Shelf._load

    def timed(shelf: Shelf, variant: Variant) -> Style:
        start = time.thread_time()
        style = load(shelf, variant)
        loading.append(time.thread_time() - start)
        return style

    @contextmanager
    def connected(*given: Any) -> Iterator[InProcess]:
        with InProcess.connected(*given) as execution:
            runs.append(execution)
            yield execution

    monkeypatch.setattr(Shelf, "_load", timed)
    start = time.monotonic()
    tally = case.run(Stylizer, execute=connected, styles="tag:asked", batch_size=PICTURES)
    seconds = time.monotonic() - start
    assert tally.counts()["done"] == ASKED * PICTURES
    assert len(loading) == 2 * ASKED  # each once a chunk, of which a worker has two at least
    spent = runs[-1].spent.seconds
    with capsys.disabled():
        print(
            f"\n{len(loading)} loads, {1000 * statistics.median(loading):.1f} ms of processor each;"
            f" {spent['computing']:.2f} s of computing; waited {spent['styles']:.2f} s of {seconds:.1f} s for styles"
        )
    assert spent["styles"] < spent["computing"]
