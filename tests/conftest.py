"""What many tests share: one S3 server and one Ray for the whole session."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cluster.storage import Storage
from tests.support.golden_maker import GoldenFolders
from tests.support.s3_server import S3, running_s3

# The same examples in every run: what fails here fails everywhere.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One S3 server and one bucket for the session."""
    with running_s3(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="session")
def ray_cluster(s3: S3) -> Iterator[None]:
    """One local Ray with four logical CPUs; its workers inherit the way to the S3 server."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        # Ray turns tokens on by itself; given one, it writes none to the home directory.
        environment.delenv("RAY_AUTH_MODE", raising=False)
        environment.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)
        environment.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local", num_cpus=4, object_store_memory=512 << 20, include_dashboard=False, log_to_driver=False
        )
        yield
        ray.shutdown()


@pytest.fixture(params=["local", "s3"])
def storage_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place on every kind of storage in turn."""
    if request.param == "local":
        return str(tmp_path / "storage")
    server: S3 = request.getfixturevalue("s3")
    return server.bucket_uri()


@pytest.fixture
def storage(storage_uri: str) -> Storage:
    return Storage.open(storage_uri)


@pytest.fixture(scope="session")
def golden_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders in the golden format of configurations that the release's own folder does not have; not to be changed."""
    return GoldenFolders(tmp_path_factory.mktemp("golden"))
