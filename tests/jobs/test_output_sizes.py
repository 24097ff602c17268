"""Pictures of another size than the base's, in other formats: what the stage "write" makes, and when it does not."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from catalog.manifest import Manifest
from catalog.output_names import picture_name, relative_key
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs.streaming.command import StylizeFlags, params_hash
from jobs.streaming.listing import FolderSource
from jobs.streaming.rows import Row
from jobs.streaming.writing import PhotographChanged, PhotographUnreadable, Write, _Room
from osasis.image import decode_image, fit
from osasis.settings import PictureConfig, StylizeConfig
from tests.support.hostile import encoded, picture
from tests.support.in_process import without_cluster
from tests.support.stylize_case import Case

SIDE = 16


class Bench:
    """A photograph of 60 × 40 pixels in a folder, decoded for a base of 16, and a stage that writes beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photo = picture(60, 40)
        self.source = FolderSource(Storage.open(folder / "in"))
        (folder / "in").mkdir()
        (folder / "in/a.png").write_bytes(encoded(self.photo, "PNG"))
        square, transform = fit(self.photo, SIDE)
        self.pixels = 255 - np.asarray(square)
        self.row: Row = {
            "key": "a.png", "locator": str(folder / "in/a.png"), "width": 60, "height": 40, "pixels": square.tobytes(),
            "transform": transform.model_dump_json(),
            "input_sha256": Storage.open(folder / "in/a.png").sha256(),
        }  # fmt: skip

    def write(self, **settings: Any) -> Row:
        write = Write(Storage.open(self.folder / "out"), self.source, 10_000, PictureConfig(**settings))
        return write("s@1", self.row, self.pixels)

    def written(self, **settings: Any) -> Image.Image:
        return decode_image(Path(self.write(**settings)["output_uri"]).read_bytes())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_whole_picture_is_written_with_the_square_laid_back(bench: Bench) -> None:
    np.testing.assert_array_equal(np.asarray(bench.written()), bench.pixels)
    whole = np.asarray(bench.written(size="original")).astype(int)
    assert whole.shape == (40, 60, 3)
    np.testing.assert_array_equal(whole[:, :10], np.asarray(bench.photo)[:, :10])
    assert np.abs(whole[:, 12:48] - np.asarray(bench.photo)[:, 12:48]).mean() > 20
    assert bench.written(size=30).size == (30, 20)
    assert bench.written(size=3000).size == (60, 40)


@pytest.mark.parametrize(("file_format", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")])
def test_the_format_names_the_file_and_the_key_stays(bench: Bench, file_format: str, suffix: str) -> None:
    row = bench.write(format=file_format, size="original")
    assert row["output_uri"].endswith(f"images/s@1/a.png{suffix}")
    assert Storage.open(row["output_uri"]).sha256() == row["output_sha256"]


def test_a_photograph_that_is_gone_or_another_fails_alone(bench: Bench) -> None:
    (bench.folder / "in/a.png").write_bytes(encoded(picture(60, 40, seed=9), "PNG"))
    with pytest.raises(PhotographChanged):
        bench.write(size="original")
    (bench.folder / "in/a.png").unlink()
    with pytest.raises(PhotographUnreadable, match="NotFound"):
        bench.write(size="original")
    bench.write()  # the base's square needs no photograph


def test_what_a_format_cannot_hold_fails_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("osasis.imaging.encode").imaging.encode._LONGEST, "webp", 50)
    with pytest.raises(ValueError, match="webp holds at most 50"):
        bench.write(size="original", format="webp")


def _hash(**settings: Any) -> str:
    return params_hash(StylizeConfig(), "crop", "f" * 16, output=PictureConfig(**settings))


def test_only_settings_that_have_an_effect_are_other_parameters() -> None:
    former = params_hash(StylizeConfig(), "crop", "f" * 16)
    assert _hash() == _hash(size="base", format="png", detail="residual") == former
    hashes = [
        former,
        *(_hash(size=size, detail=detail) for size in ("original", 256) for detail in ("guided", "residual", "none")),
        _hash(format="jpeg"),
        _hash(format="jpeg", format_quality=50),
        _hash(format="webp"),
    ]
    assert len(set(hashes)) == len(hashes)
    assert _hash(format="jpeg", format_quality=92) == _hash(format="jpeg")


def test_settings_without_an_effect_are_refused() -> None:
    with pytest.raises(ValidationError, match="PNG keeps everything"):
        PictureConfig(format_quality=80)
    with pytest.raises(ValidationError, match="give a size"):
        PictureConfig(detail="guided")
    for size in (0, -1, "huge"):
        with pytest.raises(ValidationError):
            PictureConfig(size=size)  # type: ignore[arg-type]


def test_flags_are_read_as_typed() -> None:
    given = {"storage": "s", "styles": "all", "input": "i", "output": "o"}
    assert StylizeFlags(**given, size="256", format="webp").output_config() == PictureConfig(size=256, format="webp")
    assert StylizeFlags(**given, size="original", detail="none").output_config().detail == "none"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_no_folder_stands_where_a_picture_does(suffix: str) -> None:
    name = picture_name("s@1", relative_key("a"), suffix)
    below = picture_name("s@1", relative_key(f"a{suffix}/b"), suffix)
    assert not below.startswith(f"{name}/")
    assert picture_name("s@1", "a/b.png") == "images/s@1/a/b.png.png"


def test_threads_hold_no_more_than_there_is_room_for() -> None:
    room, holding, most = _Room(10), [0], [0]
    lock = threading.Lock()

    def hold(amount: int) -> None:
        for _ in range(20):
            with room.held(amount):
                with lock:
                    holding[0] += amount
                    most[0] = max(most[0], holding[0])
                with lock:
                    holding[0] -= amount

    threads = [threading.Thread(target=hold, args=(amount,)) for amount in (4, 4, 4, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 10
    with room.held(10**9):  # more than there is: alone
        pass


def test_a_whole_run_at_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_cluster(monkeypatch)
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.add({"a.png": encoded(picture(60, 40), "PNG"), "b.jpg": encoded(picture(30, 50), "JPEG"), "c.png": b"none"})
    counts = case.run(size="original", format="webp", fit="pad").counts()
    assert (counts["done"], counts["rejected"]) == (2, 1)
    rows = Manifest(case.root.child("out")).rows(["key", "output_uri", "width", "height"], status="done")
    for row in rows:
        assert row["output_uri"].endswith(f"/{row['key']}.webp")
        image = decode_image(Storage.open(row["output_uri"]).read_bytes())
        assert image.size == (row["width"], row["height"])
    assert case.run(size="original", format="webp", fit="pad").counts()["decided_before"] == 3
    with pytest.raises(ConfigError, match="other parameters"):
        case.run(size=20, format="webp", fit="pad")
