"""A catalog and an output of before, made by the code of 6d7baf7 on S3 with the tests' tiny base, open and resume.

``before/bucket`` is what stood in the bucket; ``before/base`` the base. Weights are left out, as nothing computes here:
files of the same size stand for them.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

import jobs.stylize
import jobs.train_styles
from catalog.__main__ import main
from catalog.lineage import picture_lineage
from catalog.manifest import Manifest
from catalog.store import StyleCatalog
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from tests.support.s3_server import S3

_BEFORE = Path(__file__).parent / "before"
_BUCKET = "s3://osasis-before"
_CHECKPOINT_BYTES = 1_867_380


def _put(storage: Storage) -> Storage:
    """The bucket of before."""
    for file in sorted((_BEFORE / "bucket").rglob("*")):
        name = str(file.relative_to(_BEFORE / "bucket"))
        if file.is_file():
            storage.write_bytes(name, file.read_bytes())
        if name.endswith("result.json"):
            storage.write_bytes(name.replace("result.json", "style.safetensors"), bytes(_CHECKPOINT_BYTES))
    return storage


@pytest.fixture(scope="module")
def bucket(s3: S3) -> Storage:
    boto3.client("s3", endpoint_url=s3.endpoint).create_bucket(Bucket=_BUCKET.removeprefix("s3://"))
    return _put(Storage.open(_BUCKET))


@pytest.fixture(params=["where it was", "moved"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "moved":
        return _put(Storage.open(tmp_path / "moved's"))
    bucket: Storage = request.getfixturevalue("bucket")
    return bucket


@contextmanager
def _no_cluster() -> Iterator[None]:
    raise AssertionError("there is nothing to do, and yet Ray was asked for")
    yield


def test_a_catalog_of_before_opens_and_lists(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = StyleCatalog.open(storage.child("store"))
    first, second = catalog.resolve("monet@best,monet@2")
    assert (str(first), first.aliases, first.tags, first.notes) == ("monet@1", ["best"], ["painting"], "the blue one")
    assert (str(second), second.tags, second.train_config["iterations"]) == ("monet@2", ["water"], 3)
    for version in (first, second):
        for uri in (version.checkpoint_uri, version.reference_uri, version.photo_uri, version.preview_uri):
            assert uri is not None
            assert uri.startswith(f"{storage}/store/checkpoints/monet/")
            assert Storage.open(uri).exists()
    assert catalog.find("monet", first.checkpoint_uri) == first
    assert main(["verify", "--quick", "--storage", f"{storage}/store"]) == 0
    assert capsys.readouterr().out == "2 versions looked at, 0 findings\n"
    query = f"select count(*) n from styles where contains(checkpoint_uri, '{storage.uri[-5:]}')"
    assert catalog.sql(query.replace("d's", "d''s")).rows == [{"n": 2}]
    assert not catalog.gc(timedelta(0), dry_run=True).orphans


def test_stylize_resumes_an_output_of_before(bucket: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.streaming.execution.connect", _no_cluster)
    output = bucket.child("out")
    before = Manifest(output).rows()
    assert Counter(row["status"] for row in before) == {"done": 12, "rejected": 4}
    flags = [f"--storage={bucket}/store", f"--input={bucket}/in", f"--output={output}", f"--base={_BEFORE / 'base'}"]
    steps = ["--encode-steps=10", "--decode-steps=5"]
    for chosen in (["--styles=monet@best,monet@2,none"], ["--styles=monet@1", "--text=smiling"]):
        monkeypatch.setattr("sys.argv", ["stylize", *flags, *steps, *chosen])
        with pytest.raises(ConfigError, match="--former-decoding"):  # before colour profiles were followed
            jobs.stylize.main()
        sys.argv.append("--former-decoding")
        assert jobs.stylize.main() == 3  # for the picture that was rejected
    assert Manifest(output).rows() == before
    (done, *_) = (row for row in before if row["status"] == "done" and row["version"])
    lineage = picture_lineage(StyleCatalog.open(bucket.child("store")), done["output_uri"], "again")
    assert lineage["photograph"]["input_uri"] == done["input_uri"]


def test_training_resumes_a_storage_of_before(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs.train_styles, "connect", _no_cluster)
    flags = [
        f"--base={_BEFORE / 'base'}",
        f"--storage={storage}/store",
        f"--image={storage}/reference.png",
        "--id=monet",
    ]
    monkeypatch.setattr("sys.argv", ["train_styles", *flags, "--train.iterations=3"])
    assert jobs.train_styles.main() == 0
    assert "nothing to do" in capsys.readouterr().out
