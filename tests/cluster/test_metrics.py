"""Metrics and log lines: what a dashboard and a log collector read."""

import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.commandline import logs
from cluster.runtime import metrics
from tests.support.jobs_run import ROOT
from tests.support.ray_head import running_head

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


_RECORDING = """
import time
import ray
from cluster.runtime import metrics

ray.init(log_to_driver=False)
while True:  # until it is killed
    for name, metric in metrics.METRICS.items():
        labels = dict.fromkeys(metric.labels, "some")
        (metrics.count if metric.rises else metrics.gauge)(name, 1, **labels)
    time.sleep(1)
"""


@pytest.mark.slow
def test_a_running_cluster_gives_out_each_metric_with_its_labels() -> None:
    with running_head(cpus=1) as head:
        job = subprocess.Popen([sys.executable, "-c", _RECORDING], env=head.env, cwd=ROOT)
        try:
            deadline = time.monotonic() + 120
            while lacking := missing_of(head.metrics()):
                assert job.poll() is None
                assert time.monotonic() < deadline, lacking
                time.sleep(1)  # the interval of polling
        finally:
            job.kill()
            job.wait()


def missing_of(text: str) -> set[str]:
    """Metrics of which no line with all their labels is in Prometheus' text."""
    found = set()
    for name, labels in re.findall(r"^ray_(osasis_\w+)\{(.*)\} ", text, re.MULTILINE):
        if name in metrics.METRICS and set(metrics.METRICS[name].labels) <= set(re.findall(r"(\w+)=\"", labels)):
            found.add(name)
    return set(metrics.METRICS) - found


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
