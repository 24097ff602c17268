"""A real S3 server for tests and benchmarks: SeaweedFS, in a folder of its own, gone afterwards."""

import json
import os
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

_KEY, _SECRET, _REGION = "test-access-key", "test-secret-key-0123456789", "us-east-1"
READER_KEY, READER_SECRET = "reader-access-key", "reader-secret-key-0123456789"
"""Credentials that may read and list, and write nothing."""

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
    """SeaweedFS with two identities, so that credentials are really checked."""
    master, volume, filer, s3_port = _free_ports(4)
    identity = {"name": "tests", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}], "actions": ["Admin"]}
    config = folder / "s3.json"
    reader_keys = [{"accessKey": READER_KEY, "secretKey": READER_SECRET}]
    reader = {"name": "reader", "credentials": reader_keys, "actions": ["Read", "List"]}
    config.write_text(json.dumps({"identities": [identity, reader]}))
    weed = Path(sys.executable).with_name("weed")
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(
        [
            weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-volume.max=60", "-master.volumeSizeLimitMB=256", "-master.telemetry=false",
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


@contextmanager
def running_s3(folder: Path) -> Iterator[S3]:
    """A server with one bucket, its data in ``folder``; meanwhile the AWS variables of this process lead to it."""
    folder.mkdir(parents=True, exist_ok=True)
    process, endpoint = _start_weed(folder)
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
