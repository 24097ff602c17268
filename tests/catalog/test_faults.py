"""Storage that fails while the catalog is read and written: tried again within bounds, then told; nothing half-done."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from catalog.manifest import Manifest
from catalog.store import StyleCatalog
from cluster.storage import Storage, StorageError, aws
from tests.support.faulty_s3 import Action, FaultyS3, Request, faulty_s3
from tests.support.s3_server import S3
from tests.support.styles import names, trained_style


@pytest.fixture(scope="module")
def proxy(s3: S3) -> Iterator[FaultyS3]:
    with faulty_s3(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def catalog(s3: S3, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> StyleCatalog:
    """monet@1 and monet@2, of which the first is deleted; reached through the proxy."""
    proxy.follow(lambda request: "pass")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    catalog = StyleCatalog.open(Storage.open(s3.bucket_uri()))
    for content in (b"1", b"2"):
        catalog.register(trained_style(catalog.storage, "monet", content))
    catalog.delete("monet@1")
    return StyleCatalog.open(catalog.storage)


OPERATIONS: dict[str, Callable[[StyleCatalog], object]] = {
    "list": lambda catalog: catalog.list(),
    "register": lambda catalog: catalog.register(trained_style(catalog.storage, "late", b"3")),
    "alias": lambda catalog: catalog.set_alias("monet@2", "prod", expect=0),
    "delete": lambda catalog: catalog.delete("monet@2", drop_aliases=True),
    "gc": lambda catalog: catalog.gc(timedelta(0)),
    "optimize": lambda catalog: catalog.optimize(timedelta(days=7)),
}


def now_and_then(action: Action) -> Callable[[Request], Action]:
    """Every fifth request goes wrong; the request that repeats it does not."""
    return lambda request: action if request.number % 5 == 3 else "pass"


@pytest.mark.slow
@pytest.mark.parametrize("action", ["503", "reset", "reset-after"])
def test_what_goes_wrong_now_and_then_is_tried_again(catalog: StyleCatalog, proxy: FaultyS3, action: Action) -> None:
    for operation in OPERATIONS.values():
        proxy.follow(now_and_then(action))
        operation(catalog)
        assert len(proxy.seen) > 2
    proxy.follow(lambda request: "pass")
    assert names(catalog.list(deleted=True)) == ["late@1", "monet@1", "monet@2"]
    assert [row.status for row in catalog.list(deleted=True)] == ["ready", "purged", "purged"]
    assert [event["kind"] for event in catalog.history("monet", "prod")] == ["alias-set", "alias-removed"]


def at_each_commit(action: Action, lost: list[str]) -> Callable[[Request], Action]:
    """The first time that each is written; ``lost`` gets their paths."""

    def plan(request: Request) -> Action:
        if request.write is not None and request.path.endswith(".json") and request.path not in lost:
            lost.append(request.path)
            return action
        return "pass"

    return plan


@pytest.mark.parametrize("action", ["reset", "reset-after"])
def test_a_commit_whose_answer_is_lost_is_made_once(catalog: StyleCatalog, proxy: FaultyS3, action: Action) -> None:
    style = trained_style(catalog.storage, "late", b"3")
    lost: list[str] = []
    proxy.follow(at_each_commit(action, lost))
    assert str(catalog.register(style)) == "late@1"
    catalog.set_alias("late@1", "prod", expect=0)
    catalog.tag("late@1", add=["x", "y"])
    assert len(lost) >= 3
    proxy.follow(lambda request: "pass")
    assert names(catalog.list()) == ["late@1", "monet@2"]
    assert [event["kind"] for event in catalog.history("late")] == ["alias-set", "tag-added", "tag-added"]


@pytest.mark.parametrize("action", ["reset", "reset-after"])
def test_so_it_is_of_a_manifest(catalog: StyleCatalog, proxy: FaultyS3, action: Action) -> None:
    manifest = Manifest(catalog.storage)
    lost: list[str] = []
    proxy.follow(at_each_commit(action, lost))
    for name in "abc":
        manifest.append([{"input_uri": name, "status": "done"}])
    assert len(lost) >= 3
    proxy.follow(lambda request: "pass")
    assert sorted(row["input_uri"] for row in manifest.rows()) == ["a", "b", "c"]


def test_a_listing_that_breaks_off_is_asked_for_again(catalog: StyleCatalog, proxy: FaultyS3) -> None:
    cut: list[str] = []

    def first_listing(request: Request) -> Action:
        if "list-type" in request.path and "_delta_log" in request.path and not cut:
            cut.append(request.path)
            return "cut"
        return "pass"

    proxy.follow(first_listing)
    assert names(catalog.list()) == ["monet@2"]
    assert cut


_REASONS = {"503": "SlowDown", "expired": "credentials have expired", "reset": "no answer"}
_QUICK = (("list", "reset"), ("register", "expired"), ("alias", "reset"))


@pytest.mark.parametrize(
    ("name", "action"),
    [
        pytest.param(name, action, marks=() if (name, action) in _QUICK else pytest.mark.slow)
        for name in ("list", "register", "alias")
        for action in _REASONS
    ],
)
def test_what_stays_wrong_is_told_clearly_and_changes_nothing(
    catalog: StyleCatalog, proxy: FaultyS3, name: str, action: Action
) -> None:
    style = trained_style(catalog.storage, "late", b"3")
    attempts: dict[str, Callable[[], object]] = {
        "list": catalog.list,
        "register": lambda: catalog.register(style),
        "alias": lambda: catalog.set_alias("monet@2", "prod"),
    }
    proxy.follow(lambda request: action)
    begun = time.monotonic()
    with pytest.raises(StorageError) as caught:
        attempts[name]()
    assert time.monotonic() - begun < 60
    assert catalog.storage.uri in str(caught.value)
    assert "cannot" in str(caught.value)
    assert _REASONS[action] in str(caught.value)

    proxy.follow(lambda request: "pass")
    assert names(catalog.list()) == ["monet@2"]
    assert catalog.aliases() == []
    attempts[name]()


@pytest.mark.slow
def test_a_server_that_falls_silent_is_told_and_not_waited_for_without_end(
    catalog: StyleCatalog, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "READ_S", 1)
    aws.forget()
    proxy.follow(lambda request: "silent")
    begun = time.monotonic()
    with pytest.raises(StorageError, match="no answer"):
        catalog.list()
    assert time.monotonic() - begun < 60
    aws.forget()
    proxy.follow(lambda request: "pass")
    assert names(catalog.list()) == ["monet@2"]
