"""Storage in a bucket of S3 or of a server that speaks its protocol."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, cast

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, SSLError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from cluster.storage import aws
from cluster.storage.local import write_whole
from cluster.storage.s3_errors import MISSING, code_of, explain_text, explained
from cluster.storage.s3_listing import listed
from cluster.storage.types import TEMP_PREFIX, FileInfo, NotFound, StorageError, StorageRefused, StorageUnavailable

_BUFFER = 8 << 20


def _transient(error: BaseException) -> bool:
    """What botocore does not retry itself: a body cut off, and two conditional writes that met."""
    if isinstance(error, SSLError):
        return False
    return isinstance(error, (ConnectionError, HTTPClientError)) or code_of(error) == "ConditionalRequestConflict"


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

    def open(self, path: str) -> BinaryIO:
        info = self.stat(path)
        if info is None:
            raise NotFound(f"s3://{self.bucket}/{path}: cannot read: no such file")
        return cast(BinaryIO, io.BufferedReader(_Reader(self, path, info), _BUFFER))

    def read_bytes(self, path: str) -> bytes:
        with self._explained("read", path):
            return bytes(_retrying()(lambda: self._client.get_object(Bucket=self.bucket, Key=path)["Body"].read()))

    def write_bytes(self, path: str, data: bytes, if_absent: bool) -> bool:
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with self._explained("write", path):
            try:
                _retrying()(self._client.put_object, Bucket=self.bucket, Key=path, Body=data, **condition)
            except ClientError as error:
                if _status(error) != HTTPStatus.PRECONDITION_FAILED:
                    raise
                # After a retry, what stands there may be our own first attempt whose answer was lost.
                return bool(error.response["ResponseMetadata"].get("RetryAttempts")) and self.read_bytes(path) == data
        return True

    def stat(self, path: str) -> FileInfo | None:
        if not path:
            return None
        with self._explained("look at", path):
            try:
                head = self._client.head_object(Bucket=self.bucket, Key=path)
            except ClientError as error:
                if code_of(error) in MISSING:
                    return None
                # An answer to HEAD has no body that says why; one to GET has.
                self._client.get_object(Bucket=self.bucket, Key=path, Range="bytes=0-0")
                raise
        return FileInfo(path.rpartition("/")[2], head["ContentLength"], head["ETag"], head["LastModified"])

    def walk(self, path: str, recursive: bool) -> Iterator[FileInfo]:
        prefix = f"{path}/" if path else ""
        with self._explained("list", path):
            pages = partial(self._client.get_paginator("list_objects_v2").paginate, Bucket=self.bucket)
            found = listed(pages, prefix) if recursive else _objects(pages(Prefix=prefix, Delimiter="/"))
            for item in found:
                name = item["Key"].removeprefix(prefix)
                # Some tools mark folders by an object whose key ends in a slash.
                if name and not name.endswith("/") and not name.rpartition("/")[2].startswith(TEMP_PREFIX):
                    yield FileInfo(name, item["Size"], item["ETag"], item["LastModified"])

    def delete(self, path: str) -> None:
        with self._explained("delete", path):
            self._client.delete_object(Bucket=self.bucket, Key=path)

    def upload(self, file: BinaryIO, path: str) -> None:
        """What ``file`` holds from its position on, of any length; boto3 may close it."""
        with self._explained("write", path):
            self._client.upload_fileobj(file, self.bucket, path)

    def upload_file(self, local_path: Path, path: str) -> None:
        with self._explained(f"upload {local_path} to", path):
            self._client.upload_file(str(local_path), self.bucket, path)

    def download_file(self, path: str, local_path: Path) -> None:
        with self._explained(f"download to {local_path}", path):
            write_whole(local_path, lambda file: self._client.download_fileobj(self.bucket, path, file))

    def read_range(self, path: str, start: int, end: int, version: str) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive) of the object; ``version``: only of this one."""
        if end <= start:
            return b""
        how = {"Bucket": self.bucket, "Key": path, "Range": f"bytes={start}-{end - 1}"}
        how |= {"IfMatch": version} if version else {}
        with self._explained("read", path):
            return bytes(_retrying()(lambda: self._client.get_object(**how)["Body"].read()))

    def check_writable(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        with self._explained("write", folder):
            client = aws.connection().quick_client
            # Some servers make a missing bucket by the first write, so that a typing error would go unnoticed.
            client.list_objects_v2(Bucket=self.bucket, Prefix=path, MaxKeys=1)
            try:
                client.put_object(Bucket=self.bucket, Key=path, Body=b"ok", IfNoneMatch="*")
                again = client.put_object(Bucket=self.bucket, Key=path, Body=b"no", IfNoneMatch="*")
            except ClientError as error:
                if _status(error) != HTTPStatus.PRECONDITION_FAILED:
                    raise
                again = None
            finally:
                client.delete_object(Bucket=self.bucket, Key=path)
        if again is not None:
            raise StorageRefused(
                f"s3://{self.bucket}/{folder}: cannot write tables: the server ignores If-None-Match and overwrites, "
                "so that concurrent commits would be lost; use a server that has conditional writes"
            )

    def delta_options(self) -> dict[str, str]:
        return aws.connection().delta_options(self.bucket)

    def explain(self, text: str) -> tuple[type[StorageError], str] | None:
        known = explain_text(text)
        if known and known[0] is StorageUnavailable:
            aws.forget()
        return known

    @property
    def _client(self) -> Any:
        return aws.connection().client

    @contextmanager
    def _explained(self, operation: str, path: str) -> Iterator[None]:
        where = f"s3://{self.bucket}/{path}".rstrip("/")
        try:
            with explained(where, operation, lambda: aws.connection().endpoint):
                yield
        except StorageUnavailable:
            aws.forget()  # credentials in files may have been renewed until the next attempt
            raise


class _Reader(io.RawIOBase):
    """An object read by ranges, as they are asked for."""

    def __init__(self, objects: S3Objects, path: str, info: FileInfo) -> None:
        self._objects, self._path, self._info = objects, path, info
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._info.size))
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._info.size)
        if end <= self._position:
            return 0
        data = self._objects.read_range(self._path, self._position, end, self._info.version)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _objects(pages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for page in pages:
        yield from page.get("Contents", ())


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
