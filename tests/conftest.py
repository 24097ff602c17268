"""What many tests share: one S3 server and one Ray for the whole session."""

import json
import os
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import settings
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from cluster.storage import Storage

# The same examples in every run: what fails here fails everywhere.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

_KEY, _SECRET, _REGION = "test-access-key", "test-secret-key-0123456789", "us-east-1"
_GRPC_OFFSET = 10_000  # of SeaweedFS


@dataclass(frozen=True)
class S3:
    """A running S3 server, to which the AWS variables of this process lead."""

    endpoint: str
    bucket: str

    def bucket_uri(self, name: str = "") -> str:
        """A prefix of the session's bucket; a fresh one without a name."""
        return f"s3://{self.bucket}/{name or uuid.uuid4().hex[:12]}"


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with their gRPC twins, outside of Ray's 10002-19999 and of the ephemeral range."""
    candidates = list(range(20_000, 22_000))
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    with ExitStack() as held:
        for port in candidates:
            try:
                for number in (port, port + _GRPC_OFFSET):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports for the S3 server")


def _start_weed(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """SeaweedFS with one identity, so that credentials are really checked."""
    master, volume, filer, s3_port = _free_ports(4)
    identity = {"name": "tests", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}], "actions": ["Admin"]}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    weed = Path(sys.executable).with_name("weed")
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(
        [
            weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-volume.max=10", "-master.volumeSizeLimitMB=256", "-master.telemetry=false",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
            "-s3", f"-s3.port={s3_port}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}",
        ],
        stdout=log, stderr=subprocess.STDOUT, cwd=folder,
    )  # fmt: skip
    return process, f"http://127.0.0.1:{s3_port}"


@retry(
    retry=retry_if_exception_type((BotoCoreError, ClientError)),
    stop=stop_after_delay(60),
    wait=wait_fixed(0.25),
    reraise=True,
)
def _make_bucket(endpoint: str, bucket: str) -> None:
    """Polls until the whole server works: bucket, write, read."""
    config = Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1})
    client = boto3.client("s3", endpoint_url=endpoint, config=config)
    if bucket not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="ready", Body=b"yes")
    client.delete_object(Bucket=bucket, Key="ready")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One S3 server and one bucket for the session."""
    process, endpoint = _start_weed(tmp_path_factory.mktemp("weed"))
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        environment.setenv("AWS_ACCESS_KEY_ID", _KEY)
        environment.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
        environment.setenv("AWS_REGION", _REGION)
        environment.setenv("AWS_DEFAULT_REGION", _REGION)
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            _make_bucket(endpoint, "osasis-tests")
            yield S3(endpoint, "osasis-tests")
        finally:
            process.kill()  # an orderly end takes it ten seconds, and its data is thrown away
            process.wait()


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
