"""The files of cluster/deploy, each checked by what will read it, or by the field names that its reader publishes."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster" / "deploy"


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Quantities(Strict):
    requests: dict[str, str]
    limits: dict[str, str]


class Container(Strict):
    name: str
    image: str
    env: list[dict[str, str]]
    resources: Quantities
    ports: list[dict[str, Any]] = []
    volumeMounts: list[dict[str, str]] = []  # noqa: N815


class Pod(Strict):
    """The part of a Kubernetes pod that these files use."""

    serviceAccountName: str  # noqa: N815
    containers: list[Container] = Field(min_length=1, max_length=1)
    tolerations: list[dict[str, str]] = []
    terminationGracePeriodSeconds: int = 30  # noqa: N815
    volumes: list[dict[str, Any]] = []


class Template(Strict):
    spec: Pod


class HeadGroup(Strict):
    rayStartParams: dict[str, str]  # noqa: N815
    template: Template


class WorkerGroup(HeadGroup):
    groupName: str  # noqa: N815
    replicas: int
    minReplicas: int  # noqa: N815
    maxReplicas: int  # noqa: N815


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    idleTimeoutSeconds: int  # noqa: N815


class ClusterSpec(Strict):
    """Fields of ray.io/v1 RayCluster's spec (KubeRay's API reference)."""

    rayVersion: str  # noqa: N815
    authOptions: dict[Literal["mode"], Literal["token", "disabled"]]  # noqa: N815
    enableInTreeAutoscaling: bool  # noqa: N815
    autoscalerOptions: AutoscalerOptions  # noqa: N815
    gcsFaultToleranceOptions: dict[Literal["redisAddress"], str] | None = None  # noqa: N815
    headGroupSpec: HeadGroup  # noqa: N815
    workerGroupSpecs: list[WorkerGroup]  # noqa: N815


class JobSpec(Strict):
    """Fields of ray.io/v1 RayJob's spec."""

    entrypoint: str
    backoffLimit: int  # noqa: N815
    shutdownAfterJobFinishes: bool  # noqa: N815
    ttlSecondsAfterFinished: int  # noqa: N815
    rayClusterSpec: ClusterSpec  # noqa: N815


def cluster_spec(name: str) -> ClusterSpec:
    spec = load(name)["spec"]
    return (
        ClusterSpec.model_validate(spec) if name == "raycluster.yaml" else JobSpec.model_validate(spec).rayClusterSpec
    )


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_clusters_ask_for_tokens_and_grow_from_a_head_that_computes_nothing(name: str) -> None:
    spec = cluster_spec(name)
    assert spec.authOptions == {"mode": "token"}
    assert spec.enableInTreeAutoscaling
    assert spec.headGroupSpec.rayStartParams["num-cpus"] == "0"
    (workers,) = spec.workerGroupSpecs
    assert workers.template.spec.containers[0].resources.limits["nvidia.com/gpu"] == "1"
    assert {toleration["key"] for toleration in workers.template.spec.tolerations} == {"spot", "nvidia.com/gpu"}


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_clusters_run_the_ray_that_is_pinned(name: str) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (pinned,) = [d.partition("==")[2] for d in dependencies if d.startswith("ray[")]
    assert cluster_spec(name).rayVersion == pinned
    assert (
        f"rayproject/ray:{pinned}" in (ROOT / "Dockerfile").read_text() or pinned in (ROOT / "Dockerfile").read_text()
    )


def test_the_job_of_rayjob_yaml_is_a_command_that_stylize_understands() -> None:
    from cluster.commandline.cli import parse_flags
    from jobs.streaming.command import StylizeFlags

    command, *flags = shlex.split(load("rayjob.yaml")["spec"]["entrypoint"])
    assert command == "osasis-stylize"
    assert parse_flags(StylizeFlags, flags).output == "s3://BUCKET/stylized"


def test_rays_own_loader_takes_the_launcher_file_of_aws() -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    filled = fillout_defaults(load("aws.yaml"))
    validate_config(filled)
    types = filled["available_node_types"]
    assert types[filled["head_node_type"]]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in types["head"]["node_config"], "the head must not be a spot instance"
    assert types["gpu-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert not filled["setup_commands"], "Ray's default would install a nightly build"


def test_the_commands_of_aws_and_compose_are_ones_that_ray_start_takes() -> None:
    from ray.scripts.scripts import start

    aws = load("aws.yaml")
    lines = [*aws["head_start_ray_commands"], *aws["worker_start_ray_commands"]]
    lines += [service["command"] for service in load("compose.yaml")["services"].values()]
    commands = [found[1] for line in lines if (found := re.search(r"ray start (.*)", line))]
    assert len(commands) == 4
    for command in commands:
        start.make_context("start", shlex.split(command.replace("$RAY_HEAD_IP", "10.0.0.1")))


def test_compose_publishes_on_loopback_alone_and_needs_a_token() -> None:
    services = load("compose.yaml")["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    for name in ("head", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert "?" in services[name]["environment"]["RAY_AUTH_TOKEN"], "it would start without a token"


def test_no_file_holds_a_key_of_an_account() -> None:
    for path in DEPLOY.glob("*.yaml"):
        assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", path.read_text())
