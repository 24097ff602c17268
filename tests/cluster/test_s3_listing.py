"""Large prefixes: everything once, in one order, by as few requests as that takes."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import boto3
import pytest

from cluster.storage.interleave import interleaved
from cluster.storage.s3_listing import listed
from tests.support.s3_server import S3


class Bucket:
    """``list_objects_v2`` of ``keys``, a hundred a page. ``asked``: (prefix, delimiter) of each request."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = sorted(keys)
        self.asked: list[tuple[str, str]] = []
        self.busy, self.most = 0, 0
        self.lock = threading.Lock()

    def pages(self, **how: str) -> Iterator[dict[str, Any]]:
        prefix, delimiter = how["Prefix"], how.get("Delimiter", "")
        entries: dict[str, dict[str, Any]] = {}
        for key in self.keys:
            if key.startswith(prefix):
                rest = key[len(prefix) :]
                folder = f"{prefix}{rest.partition(delimiter)[0]}/" if delimiter and delimiter in rest else ""
                entries[folder or key] = {"Prefix": folder} if folder else {"Key": key}
        found = list(entries.values())
        for start in range(0, max(1, len(found)), 100):
            page = found[start : start + 100]
            with self.lock:
                self.asked.append((prefix, delimiter))
            yield {
                "Contents": [entry for entry in page if "Key" in entry],
                "CommonPrefixes": [entry for entry in page if "Prefix" in entry],
                "IsTruncated": start + 100 < len(found),
            }


def keys(bucket: Bucket, prefix: str = "") -> list[str]:
    return [item["Key"] for item in listed(bucket.pages, prefix)]


FORMS = {
    "flat": [f"{i:05d}.jpg" for i in range(950)],
    "few folders": [f"{'train' if i % 5 else 'val'}/{i % 40}/{i}.jpg" for i in range(3000)],
    "folders and files beside them": [f"a/{i}" for i in range(400)] + [f"a.{i}" for i in range(300)] + ["z"],
    "a folder for each": [f"{i:05d}/photo.jpg" for i in range(700)],
    "too many folders on a level": [f"x/{i:05d}/{k}" for i in range(1200) for k in "ab"],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_key_comes_once_and_in_the_same_order_again(form: str) -> None:
    bucket = Bucket(FORMS[form])
    found = keys(bucket)
    assert sorted(found) == bucket.keys
    assert keys(bucket) == found


def test_a_small_prefix_takes_one_request() -> None:
    bucket = Bucket(["p/a.jpg", "p/b/c.jpg", "other"])
    assert keys(bucket, "p/") == ["p/a.jpg", "p/b/c.jpg"]
    assert bucket.asked == [("p/", "")]


def test_prefixes_of_few_keys_are_not_asked_one_by_one() -> None:
    bucket = Bucket(FORMS["a folder for each"])
    keys(bucket)
    assert len(bucket.asked) == 7


def test_the_first_key_is_there_after_one_request() -> None:
    bucket = Bucket(FORMS["few folders"])
    next(iter(listed(bucket.pages, "")))
    assert len(bucket.asked) == 1


def test_slow_iterators_are_read_at_once() -> None:
    meeting = threading.Barrier(3, timeout=30)

    def slow(name: str) -> Iterator[str]:
        meeting.wait()  # passed only by three at once
        yield name

    assert list(interleaved(map(slow, "abcdef"), 3)) == list("abcdef")
    assert list(interleaved((iter(part) for part in ("ab", "cdef", "g")), 2)) == list("acbdegf")


def test_a_server_lists_the_same(s3: S3) -> None:
    client = boto3.client("s3")
    prefix = f"{s3.bucket_uri().rpartition('/')[2]}/"
    names = {f"{prefix}{folder}/{i}.jpg" for folder in ("a", "b/c", "b/d") for i in range(6)} | {f"{prefix}a.jpg"}
    for name in names:
        client.put_object(Bucket=s3.bucket, Key=name, Body=b"x")
    pages = partial(
        client.get_paginator("list_objects_v2").paginate, Bucket=s3.bucket, PaginationConfig={"PageSize": 3}
    )
    found = [item["Key"] for item in listed(pages, prefix)]
    assert sorted(found) == sorted(names)
