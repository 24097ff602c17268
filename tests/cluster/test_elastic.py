"""Workers that a run can have, as nodes come and go: no cluster needed."""

import logging
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from cluster.runtime import elastic
from cluster.runtime.elastic import Elastic, NoNodeLeft
from cluster.runtime.resources import Node, Resources
from cluster.runtime.target import Target
from cluster.runtime.waiting import Asking

NODE: Node = {"Resources": {"CPU": 4.0}}
HEAD: Node = {"Resources": {"memory": 1e9}}


@dataclass
class Wanted:
    workers: Target
    wait: timedelta = timedelta(minutes=15)

    def resources(self, there: object) -> Resources:
        return Resources(2.0)


@dataclass
class Cluster(Asking):
    """Nodes that are there now, seconds that have passed, and workers asked for."""

    nodes: list[Node] = field(default_factory=list)
    now: float = 0.0
    asked: int = 0

    def keep(self, resources: Resources, count: int) -> None:
        self.asked = count

    def looked_at_later(self, by: Elastic, *nodes: Node, seconds: float = 5.0) -> bool:
        self.nodes, self.now = [HEAD, *nodes], self.now + seconds
        return by.look()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster(nodes=[HEAD, NODE])
    monkeypatch.setattr(elastic, "nodes", lambda: cluster.nodes)
    return cluster


def watched(cluster: Cluster, target: Target, wait: timedelta = timedelta(minutes=15)) -> Elastic:
    return Elastic(Resources(2.0), Wanted(target, wait), cluster, clock=lambda: cluster.now)


def test_nodes_that_come_and_go_change_the_number_of_workers(cluster: Cluster) -> None:
    workers = watched(cluster, Target(1, 5))
    assert (workers.now, workers.most) == (2, 5)
    assert cluster.looked_at_later(workers, NODE, NODE)
    assert workers.now == 4
    assert not cluster.looked_at_later(workers, NODE, NODE)
    assert cluster.looked_at_later(workers, NODE, NODE, NODE)
    assert workers.now == 5
    assert cluster.looked_at_later(workers, NODE)
    assert workers.now == 2


def test_the_cluster_is_asked_every_few_seconds_and_not_with_every_row(cluster: Cluster) -> None:
    workers = watched(cluster, Target())
    assert not cluster.looked_at_later(workers, NODE, NODE, seconds=0.1)
    assert workers.now == 2


def test_what_the_target_lacks_is_asked_for(cluster: Cluster) -> None:
    workers = watched(cluster, Target(6, 8))
    cluster.looked_at_later(workers, NODE)
    assert cluster.asked == 4
    cluster.looked_at_later(workers, NODE, NODE, NODE)
    assert cluster.asked == 0
    cluster.nodes, cluster.now = [HEAD], cluster.now + 5
    workers.look(work=2)  # is left for two of the six
    assert cluster.asked == 2


def test_without_a_node_it_says_so_and_waits_as_long_as_it_may(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    workers = watched(cluster, Target(), wait=timedelta(minutes=1))
    with caplog.at_level(logging.INFO):
        assert cluster.looked_at_later(workers)
        assert workers.now == 0
        assert cluster.looked_at_later(workers, NODE, seconds=50)
        assert workers.now == 2
        cluster.looked_at_later(workers)
        cluster.looked_at_later(workers, seconds=50)
        with pytest.raises(NoNodeLeft, match="no worker is left: one worker needs 2 CPU, which no node"):
            cluster.looked_at_later(workers, seconds=20)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "which no node of the cluster has" in said[0]
    assert said[1] == "there after 50 s"
