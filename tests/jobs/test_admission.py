"""How many workers a node takes."""

import pytest

from cluster.runtime.resources import Resources
from jobs.finetuning.admission import UNMEASURED, Usage, room, share

GIB = 2**30
CPUS = {"CPU": 16.0, "memory": 64.0 * GIB}
GPUS = {"CPU": 16.0, "GPU": 2.0, "memory": 64.0 * GIB}


def test_before_anything_is_measured_a_worker_gets_memory_enough_or_a_gpu_is_shared_by_none() -> None:
    assert room(Resources(1), CPUS | {"memory": 3.5 * UNMEASURED}, None) == 3
    assert room(Resources(1), CPUS | {"memory": 1.0}, None) == 1
    assert room(Resources(1, 0.1), GPUS, None) == 1
    assert room(Resources(1, 1), GPUS, None) == 2
    assert share(Resources(1, 0.1), None).gpus == 0.1
    assert share(Resources(1), None) == Resources(1)


@pytest.mark.parametrize(("taken", "workers"), [(1, 16), (7, 8), (40, 1), (200, 1)])
def test_measured_memory_bounds_the_workers_of_a_node(taken: int, workers: int) -> None:
    assert room(Resources(1), CPUS, Usage(taken * GIB)) == workers
    assert room(Resources(8), CPUS, Usage(taken * GIB)) <= 2


@pytest.mark.parametrize(("taken", "per_gpu", "asked"), [(30, 2, 0.5), (24, 3, 0.3333), (2, 10, 0.1), (79, 1, 1.0)])
def test_gpus_are_shared_by_as_many_as_their_memory_holds(taken: int, per_gpu: int, asked: float) -> None:
    usage = Usage(GIB, taken * GIB, 80 * GIB)
    assert room(Resources(0.5, 0.1), GPUS, usage) == 2 * per_gpu
    assert share(Resources(0.5, 0.1), usage).gpus == asked
    assert per_gpu * asked <= 1  # Ray puts them on one, and not one more
    assert room(Resources(1, 1), GPUS, usage) == 2
    assert share(Resources(1, 1), usage).gpus == 1


def test_usages_are_joined_by_the_most_of_each() -> None:
    assert Usage(1, 5, 80).or_more(Usage(3, 2, 40)) == Usage(3, 5, 80)
