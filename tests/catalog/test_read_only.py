"""Credentials that may only read are enough to list, search and pull."""

from pathlib import Path

import pytest

from catalog.__main__ import main
from catalog.encoder import BaseClip
from catalog.store import StyleCatalog
from cluster.storage import Storage, StorageError
from tests.support.s3_server import READER_KEY, READER_SECRET, S3
from tests.support.styles import trained_style

_PICTURE = Path(__file__).parents[2] / "samples" / "styles" / "van-gogh-1889.jpg"


def test_who_may_only_read_can_list_search_and_pull(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage.open(s3.bucket_uri())
    clip = BaseClip("mini64")
    embedded = {"clip_embedding": clip.encode_image(_PICTURE.read_bytes()), "clip_encoder": clip.clip_encoder}
    StyleCatalog.open(storage).register(trained_style(storage, "monet", b"1", **embedded))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    with pytest.raises(StorageError):
        Storage.open(storage.uri).write_bytes("mine", b"")
    for command in (["list"], ["search", "--like", str(_PICTURE)], ["pull", "monet@1", str(tmp_path / "out")]):
        assert main([*command, "--storage", storage.uri]) == 0, capsys.readouterr().err
    assert (tmp_path / "out" / "monet@1" / "style.safetensors").read_bytes() == b"1"
    assert "monet" in capsys.readouterr().out
