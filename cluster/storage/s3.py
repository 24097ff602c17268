"""Storage in a bucket of S3 or of a server that speaks its protocol."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from cluster.storage import TEMP_PREFIX, FileInfo, NotFound, StorageError
from cluster.storage.local import write_whole

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem, S3FileSystem

_READ_S = 60
"""A server may be silent for so long; then the request is repeated, a few times."""

_MISSING = ("404", "NoSuchKey", "NotFound")
_EXPLAINED = {
    "NoSuchBucket": "there is no such bucket; create it or correct the URI",
    "AccessDenied": "access denied; check the credentials and the policy of the bucket",
    "403": "access denied; check the credentials and the policy of the bucket",
    "InvalidAccessKeyId": "the access key is unknown there; check AWS_ACCESS_KEY_ID and the endpoint",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; renew them",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "InvalidBucketName": "the bucket's name is not valid; correct the URI",
}


def endpoint() -> str | None:
    """The S3 endpoint of the environment, None for AWS itself.

    Raises:
        StorageError: it is no http(s) URL, or carries a user name or password.
    """
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise StorageError("AWS_ENDPOINT_URL must look like http://host:port, without user name or password")
    return url.rstrip("/")


@lru_cache
def _found_region(bucket: str) -> str:
    from pyarrow.fs import resolve_s3_region

    region = boto3.session.Session().region_name
    if region:
        return str(region)
    try:
        return str(resolve_s3_region(bucket))
    except OSError as error:
        raise StorageError(f"s3://{bucket}: the bucket's region is not known; set AWS_REGION") from error


def region(bucket: str) -> str:
    """From the environment, the AWS profile, or the bucket itself."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or ("us-east-1" if endpoint() else _found_region(bucket))


@lru_cache
def _client(url: str | None, region_name: str, quick: bool) -> Any:
    """Thread-safe and shared by the process. ``quick`` gives up within seconds."""
    config = Config(
        connect_timeout=3 if quick else 10,
        read_timeout=10 if quick else _READ_S,
        retries={"mode": "standard", "max_attempts": 2 if quick else 5},
        max_pool_connections=32,
        s3={"addressing_style": "path" if url else "auto"},
    )
    return boto3.session.Session().client("s3", endpoint_url=url, region_name=region_name, config=config)


@lru_cache
def _filesystem(url: str | None, region_name: str) -> "S3FileSystem":
    from pyarrow.fs import S3FileSystem  # slow to load, and needed by Ray and Arrow alone

    parts = urlsplit(url or "https:")
    return S3FileSystem(
        endpoint_override=parts.netloc + parts.path or None,
        scheme=parts.scheme,
        region=region_name,
        connect_timeout=10,
        request_timeout=60,
    )


def _code(error: BaseException) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _transient(error: BaseException) -> bool:
    """What botocore does not retry itself: a body cut off, and two conditional writes that met."""
    return isinstance(error, (ConnectionError, HTTPClientError)) or _code(error) == "ConditionalRequestConflict"


def _retrying() -> Retrying:
    return Retrying(
        retry=retry_if_exception(_transient),
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(multiplier=0.2, max=3),
        reraise=True,
    )


class S3Objects:
    """Keys in one bucket."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket

    def filesystem(self) -> "FileSystem":
        return _filesystem(endpoint(), region(self.bucket))

    def read_bytes(self, path: str) -> bytes:
        with self._explained("read", path):
            return bytes(_retrying()(lambda: self._client().get_object(Bucket=self.bucket, Key=path)["Body"].read()))

    def write_bytes(self, path: str, data: bytes, if_absent: bool) -> bool:
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with self._explained("write", path):
            try:
                _retrying()(self._client().put_object, Bucket=self.bucket, Key=path, Body=data, **condition)
            except ClientError as error:
                if error.response["ResponseMetadata"].get("HTTPStatusCode") != HTTPStatus.PRECONDITION_FAILED:
                    raise
                # After a retry, what stands there may be our own first attempt whose answer was lost.
                return bool(error.response["ResponseMetadata"].get("RetryAttempts")) and self.read_bytes(path) == data
        return True

    def stat(self, path: str) -> FileInfo | None:
        if not path:
            return None
        with self._explained("look at", path):
            try:
                head = self._client().head_object(Bucket=self.bucket, Key=path)
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise
        return FileInfo(path.rpartition("/")[2], head["ContentLength"], head["ETag"], head["LastModified"])

    def walk(self, path: str, recursive: bool) -> Iterator[FileInfo]:
        prefix = f"{path}/" if path else ""
        pages = self._client().get_paginator("list_objects_v2")
        with self._explained("list", path):
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, **({} if recursive else {"Delimiter": "/"})):
                for item in page.get("Contents", ()):
                    name = item["Key"].removeprefix(prefix)
                    # Some tools mark folders by an object whose key ends in a slash.
                    if name and not name.endswith("/") and not name.rpartition("/")[2].startswith(TEMP_PREFIX):
                        yield FileInfo(name, item["Size"], item["ETag"], item["LastModified"])

    def delete(self, path: str) -> None:
        with self._explained("delete", path):
            self._client().delete_object(Bucket=self.bucket, Key=path)

    def upload_file(self, local_path: Path, path: str) -> None:
        with self._explained(f"upload {local_path} to", path):
            self._client().upload_file(str(local_path), self.bucket, path)

    def download_file(self, path: str, local_path: Path) -> None:
        with self._explained(f"download to {local_path}", path):
            write_whole(local_path, lambda file: self._client().download_fileobj(self.bucket, path, file))

    def check_writable(self, path: str) -> None:
        client = self._client(quick=True)
        with self._explained("write", path.rpartition("/")[0]):
            # Some servers make a missing bucket by the first write, so that a typing error would go unnoticed.
            client.list_objects_v2(Bucket=self.bucket, Prefix=path, MaxKeys=1)
            client.put_object(Bucket=self.bucket, Key=path, Body=b"ok")
            client.delete_object(Bucket=self.bucket, Key=path)

    def delta_options(self) -> dict[str, str]:
        # What goes wrong is tried again for a minute at most; by default it would be three.
        patience = {
            "connect_timeout": "10s",
            "timeout": f"{_READ_S}s",
            "max_retries": "6",
            "retry_timeout": f"{_READ_S}s",
        }
        options = {"AWS_REGION": region(self.bucket), "AWS_CONDITIONAL_PUT": "etag", **patience}
        if url := endpoint():
            options |= {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": str(url.startswith("http:")).lower()}
        return options

    def _client(self, quick: bool = False) -> Any:
        return _client(endpoint(), region(self.bucket), quick)

    @contextmanager
    def _explained(self, operation: str, path: str) -> Iterator[None]:
        """Turns what boto3 raises into a :class:`StorageError` that says how to fix it."""
        where = f"s3://{self.bucket}/{path}".rstrip("/")
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error, OSError, ValueError) as error:
            kind = NotFound if _code(error) in _MISSING else StorageError
            at = f" at {url}" if (url := endpoint()) else ""
            raise kind(f"{where}: cannot {operation}{at}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    code = _code(error)
    if code in _MISSING:
        return "no such file"
    if code:
        return _EXPLAINED.get(code, f"the server answered {code}; see its log or try again")
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or use a role"
    if isinstance(error, (ConnectionError, HTTPClientError)):
        return "no answer; check AWS_ENDPOINT_URL and the network"
    return f"{type(error).__name__}: {error}"
