"""The structure cache: what it saves, what it costs in fidelity, and that it never costs a picture."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.commandline.cli import ConfigError
from cluster.storage import Storage, StorageUnavailable
from jobs.streaming.command import StylizeFlags, resolve
from jobs.streaming.structure import KeptStructure
from jobs.streaming.stylizing import Stylizer
from osasis.image import decode_image, to_tensor
from osasis.metrics import structural_similarity
from tests.support.in_process import InProcess
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[KeptStructure]:
    """Those of the workers that were made."""
    made: list[KeptStructure] = []
    start = Stylizer.__init__

    def remember(self: Stylizer, *task: Any) -> None:
        start(self, *task)
        if self.structure:
            made.append(self.structure)

    monkeypatch.setattr(Stylizer, "__init__", remember)
    return made


def pixels(data: bytes) -> torch.Tensor:
    return to_tensor(decode_image(data))[None]


def test_a_second_run_with_other_styles_encodes_nothing(tmp_path: Path, caches: list[KeptStructure]) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=2)
    case.add_pictures(6)
    keep = case.root.child_uri("codes")
    case.run(execute=InProcess.connected, styles="style-0", keep_structure=keep)
    case.run(execute=InProcess.connected, styles="style-1", keep_structure=keep)
    assert [(cache.read, cache.computed) for cache in caches] == [(0, 6), (6, 0)]
    assert case.check_consistent() == {"done": 12}
    kept = case.root.child("codes").list_files()
    assert len(kept) == 6
    size = case.root.child("codes").size(kept[0])
    assert 2 * (3 * SIZE * SIZE + 12) <= size <= 2 * (3 * SIZE * SIZE + 12) + 200
    case.run(execute=InProcess.connected, keep_structure=keep, encode_steps=20, output=case.root.child_uri("other"))
    assert caches[-1].read == 0, "other settings of encoding are other codes"


def test_pictures_from_kept_codes_are_the_exact_ones_but_for_rounding(tmp_path: Path) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=2)
    case.add_pictures(4)
    outputs = {}
    for name, flags in (("exact", {}), ("new", {"keep_structure": "codes"}), ("kept", {"keep_structure": "codes"})):
        flags = {flag: case.root.child_uri(value) for flag, value in flags.items()}
        case.run(execute=InProcess.connected, output=case.root.child_uri(name), **flags)
        images = case.root.child(name, "images")
        outputs[name] = {file: images.read_bytes(file) for file in images.list_files()}
    assert outputs["new"] == outputs["kept"], "what was kept before changes no byte"
    assert len(outputs["exact"]) == 8
    for file, data in outputs["exact"].items():
        exact, kept = pixels(data), pixels(outputs["kept"][file])
        assert (exact - kept).abs().max() <= 2.01 * 2 / 255
        assert structural_similarity(exact, kept).item() > 0.999


def test_trouble_with_the_cache_costs_no_picture(
    tmp_path: Path, caches: list[KeptStructure], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=2)
    case.add_pictures(3)
    codes = case.root.child("codes")
    case.run(execute=InProcess.connected, styles="style-0", keep_structure=codes.uri)
    first, second, _ = codes.list_files()
    codes.write_bytes(first, b"damaged")
    codes.write_bytes(second, b"")
    read_bytes = Storage.read_bytes

    def refuse(self: Storage, name: str = "") -> bytes:
        if self.uri == codes.uri and name not in (first, second):
            raise StorageUnavailable("no answer")
        return read_bytes(self, name)

    monkeypatch.setattr(Storage, "read_bytes", refuse)
    case.run(execute=InProcess.connected, styles="style-1", keep_structure=codes.uri)
    assert (caches[-1].read, caches[-1].computed) == (0, 3)
    monkeypatch.undo()
    assert case.check_consistent() == {"done": 6}
    assert codes.size(first) == codes.size(second) > 1000, "damaged codes are replaced"


def test_a_place_that_cannot_be_written_is_told_before_work_starts(tmp_path: Path) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.add_pictures(1)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ConfigError, match="--keep-structure"):
        resolve(StylizeFlags(**case.flags, keep_structure=str(tmp_path / "file")))
