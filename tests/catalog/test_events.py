"""What is said of versions later: aliases, tags, notes, deletions; the same on every kind of storage."""

import threading
from pathlib import Path

import pytest

from catalog.errors import CatalogUsageError, UnknownStyle
from catalog.events import author
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.racing import race
from tests.support.styles import names, new_style

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def catalog(storage: Storage) -> StyleCatalog:
    """monet@1, monet@2 and hokusai@1."""
    catalog = StyleCatalog.open(storage)
    catalog.register(new_style(storage, "monet", b"1", tags=["painting"]))
    catalog.register(new_style(storage, "monet", b"2", tags=["painting", "water"], notes="registered"))
    catalog.register(new_style(storage, "hokusai", b"3", tags=["print"]))
    return catalog


def test_an_alias_means_one_version_and_moves_only_from_where_it_is_expected(catalog: StyleCatalog) -> None:
    assert catalog.set_alias("monet@1", "prod", expect=0) == ("monet", 1)
    assert names(catalog.resolve("monet@prod")) == ["monet@1"]
    for wrong in (0, 2):
        with pytest.raises(CatalogUsageError, match="points to version 1"):
            catalog.set_alias("monet", "prod", expect=wrong)
    catalog.set_alias("monet", "prod", expect=1)
    catalog.set_alias("monet@2", "best")
    catalog.set_alias("monet@2", "best")  # again: nothing is said twice
    assert catalog.show("monet@prod").aliases == ["best", "prod"]
    assert [(a.alias, a.version, a.author) for a in catalog.aliases("monet")] == [
        ("best", 2, author()),
        ("prod", 2, author()),
    ]
    assert [(e["kind"], e["version"]) for e in catalog.history("monet", "prod")] == [("alias-set", 1), ("alias-set", 2)]
    assert len(catalog.history("monet")) == 3
    catalog.remove_alias("monet@prod", expect=2)
    with pytest.raises(UnknownStyle, match="no alias 'prod'"):
        catalog.resolve("monet@prod")
    with pytest.raises(UnknownStyle, match="no alias 'prod'"):
        catalog.remove_alias("monet@prod")
    for bad in ("Prod", "1st", "a b", "", "../x", "'"):
        with pytest.raises(CatalogUsageError, match="alias"):
            catalog.set_alias("monet", bad)
    with pytest.raises(UnknownStyle):
        catalog.set_alias("monet@9", "prod")


def test_tags_and_notes_come_and_go(catalog: StyleCatalog) -> None:
    catalog.tag("monet", add=["calm", "water"], remove=["painting"])
    assert catalog.show("monet@2").tags == ["water", "calm"]
    assert catalog.show("monet@1").tags == ["painting"]
    assert names(catalog.resolve("tag:calm")) == ["monet@2"]
    with pytest.raises(UnknownStyle):
        catalog.resolve("tag:painting")  # of the latest versions none bears it now
    catalog.tag("monet@2", add=["painting"], remove=["calm"])
    assert catalog.show("monet").tags == ["painting", "water"]
    with pytest.raises(CatalogUsageError, match="small letters"):
        catalog.tag("monet", add=["Two Words"])

    first = catalog.add_note("monet@2,hokusai", "too blue")
    second = catalog.add_note("monet@2", "it's <b>bold</b>; drop table styles\n--")
    assert catalog.show("monet").notes == "registered\ntoo blue\nit's <b>bold</b>; drop table styles\n--"
    assert [note.note_id for note in catalog.notes("monet")] == [first, second]
    catalog.remove_note("monet@2", first)
    assert catalog.show("monet").notes.startswith("registered\nit's")
    assert catalog.show("hokusai").notes == "too blue"
    with pytest.raises(UnknownStyle, match="no note"):
        catalog.remove_note("monet@2", first)


def test_a_deleted_version_is_hidden_until_it_is_restored(catalog: StyleCatalog) -> None:
    catalog.set_alias("monet@2", "prod")
    with pytest.raises(CatalogUsageError, match=r"monet@prod \(version 2\)"):
        catalog.delete("monet")
    assert catalog.delete("monet", drop_aliases=True) == [("monet", 2)]
    assert names(catalog.list()) == ["hokusai@1", "monet@1"]
    assert names(catalog.list(deleted=True)) == ["hokusai@1", "monet@1", "monet@2"]
    assert names(catalog.resolve("monet,all")) == ["monet@1", "hokusai@1"]
    with pytest.raises(UnknownStyle, match="it is deleted"):
        catalog.resolve("monet@2")
    with pytest.raises(UnknownStyle, match="it is deleted"):
        catalog.set_alias("monet@2", "prod")
    assert str(catalog.register(new_style(catalog.storage, "monet", b"4"))) == "monet@3"
    catalog.delete("monet@1,monet@3")
    with pytest.raises(UnknownStyle, match="every version of 'monet' is deleted"):
        catalog.resolve("monet")
    assert catalog.restore("monet@3") == [("monet", 3)]
    assert catalog.restore("monet") == [("monet", 1), ("monet", 2)]
    assert names(catalog.list()) == ["hokusai@1", "monet@1", "monet@2", "monet@3"]
    assert catalog.aliases() == []


def test_registering_a_deleted_checkpoint_again_restores_it(catalog: StyleCatalog) -> None:
    catalog.delete("hokusai")
    again = catalog.register(new_style(catalog.storage, "hokusai", b"3"))
    assert (str(again), again.status) == ("hokusai@1", "ready")
    assert names(catalog.resolve("hokusai")) == ["hokusai@1"]


_MOVE = """
import sys
from catalog.errors import CatalogUsageError
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.racing import wait_for_start

catalog = StyleCatalog.open(Storage.open(sys.argv[1]))
wait_for_start()
try:
    catalog.set_alias("monet@2", "prod", expect=1)
    print("moved")
except CatalogUsageError:
    print("refused")
catalog.tag("monet@1", add=[f"from-{sys.argv[2]}"])
"""


def test_of_racing_processes_one_moves_the_alias_and_no_tag_is_lost(catalog: StyleCatalog) -> None:
    catalog.set_alias("monet@1", "prod")
    said = race(_MOVE, [(catalog.storage.uri, number) for number in range(4)])
    assert sorted(said) == ["moved\n", "refused\n", "refused\n", "refused\n"]
    assert {*catalog.show("monet@1").tags} == {"painting", "from-0", "from-1", "from-2", "from-3"}
    assert len(catalog.history("monet", "prod")) == 2


def test_threads_that_share_a_catalog_lose_nothing(tmp_path: Path) -> None:
    catalog = StyleCatalog.open(Storage.open(tmp_path))
    styles = [new_style(catalog.storage, "monet", f"{n}".encode()) for n in range(6)]
    threads = [threading.Thread(target=catalog.register, args=[style]) for style in styles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.version for row in catalog.list()] == [1, 2, 3, 4, 5, 6]


def test_a_reader_keeps_the_catalog_it_opened(catalog: StyleCatalog) -> None:
    from catalog.view import Question

    before = catalog.view()
    catalog.register(new_style(catalog.storage, "new", b"9"))
    catalog.tag("monet", add=["later"])
    catalog.delete("hokusai")
    asked = Question(("style_id", "version", "tags"))
    assert [(row["style_id"], row["version"]) for row in before.ask(asked)] == [
        ("hokusai", 1),
        ("monet", 1),
        ("monet", 2),
    ]
    assert all("later" not in row["tags"] for row in before.ask(asked))
