"""Metrics measured after registration: they join those of the row, filter and sort like them, and can be said anew."""

import pytest

from catalog.errors import CatalogUsageError, UnknownStyle
from catalog.filters import Condition
from catalog.store import StyleCatalog
from cluster.storage import Storage
from tests.support.styles import names, new_style


def test_measured_metrics_join_those_of_training_and_the_newest_counts(storage: Storage) -> None:
    catalog = StyleCatalog.open(storage)
    for style_id in ("one", "two"):
        catalog.register(new_style(storage, style_id, style_id.encode(), metrics={"structure": 0.9, "artfid": 99.0}))
    catalog.set_metrics({("one", 1): {"artfid": 31.5, "lpips": 0.2}, ("two", 1): {"artfid": 45.0}})
    catalog.set_metrics({("one", 1): {"artfid": 30.0, "lpips": 0.2}})
    assert catalog.show("one").metrics == {"structure": 0.9, "artfid": 30.0, "lpips": 0.2}
    assert names(catalog.list(where=[Condition.parse("artfid<40")])) == ["one@1"]
    assert names(catalog.list(sort=["-artfid"])) == ["two@1", "one@1"]
    assert catalog.sql("select metrics['artfid'] as a from styles order by a").rows == [{"a": 30.0}, {"a": 45.0}]
    told = [(event["name"], event["text"]) for event in catalog.history("one") if event["kind"] == "metric-set"]
    assert sorted(told) == [("artfid", "30.0"), ("artfid", "31.5"), ("lpips", "0.2")], (
        "equal figures are not said again"
    )


def test_what_cannot_be_a_metric_is_refused(storage: Storage) -> None:
    catalog = StyleCatalog.open(storage)
    catalog.register(new_style(storage, "one"))
    for figures in ({"version": 1.0}, {"a b": 1.0}, {"artfid": float("nan")}):
        with pytest.raises(CatalogUsageError, match="cannot be a metric"):
            catalog.set_metrics({("one", 1): figures})
    with pytest.raises(UnknownStyle):
        catalog.set_metrics({("none", 1): {"artfid": 1.0}})
    assert catalog.show("one").metrics == {}
