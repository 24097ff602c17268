"""Metrics and log lines: what a dashboard and a log collector read."""

import json
import logging
import re
from pathlib import Path

import pytest

from cluster.commandline import logs
from cluster.runtime import metrics

BOARD = json.loads((Path(__file__).parents[2] / "cluster" / "deploy" / "grafana.json").read_text())
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def test_each_query_of_the_dashboard_names_a_metric_that_exists_and_its_labels() -> None:
    for query in QUERIES:
        names = re.findall(r"ray_(osasis_\w+)", query)
        assert names, query
        labels = {label for name in names for label in metrics.METRICS[name].labels}
        assert set(re.findall(r"by \((\w+)\)", query)) <= labels, query
        assert set(re.findall(r"(\w+)=~?\"", query)) <= labels, query


def test_each_metric_is_on_the_dashboard() -> None:
    shown = {name for query in QUERIES for name in re.findall(r"ray_(osasis_\w+)", query)}
    assert shown == set(metrics.METRICS)


def test_counters_end_as_prometheus_wants_them_to() -> None:
    for name, metric in metrics.METRICS.items():
        assert name.endswith("_total") == metric.rises


def test_json_log_lines_name_the_run_and_hold_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-value")
    logs.set_up("json")
    try:
        logs.of_run("stylize", "run-7")
        logging.getLogger("cluster.runtime.elastic").info("key %s", "very-secret-value")
        logging.getLogger("urllib3").info("not a word of it")
    finally:
        logs.set_up("text")
        logs._run.clear()
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert (found["run_id"], found["job"], found["level"]) == ("run-7", "stylize", "info")
    assert found["message"] == "key [redacted]"
