"""Both jobs under faults: ``python benchmarks/faults.py --faults 200 --seed 1`` (``--quick``: 20 faults).

A cluster of three to five nodes on this machine, a real S3 server behind a proxy, and both jobs at once, round after
round: styles are trained, photographs are stylized. Nodes are killed and added, all of them are lost and replaced,
workers and the jobs themselves are killed, and storage answers 503, resets connections before or after the work is
done, or breaks off in an answer's middle. Which comes next is drawn by the seed; it comes when the jobs have got on,
and counts when it has really happened. A job that was killed, or ended otherwise than with 0, is given again with the
same command. The head is never killed: Ray has one alone.

At the end all that was asked for is compared with what is there. The last line is ``lost 0, doubled 0, faults 200``;
the exit code is 1 if anything was lost or doubled, or is left over.
"""

import argparse
import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests.support is not installed
os.environ["RAY_AUTH_MODE"] = "token"  # as Ray is imported, which reads it then
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

from benchmarks.faults_parts.job import ROOT, Job
from benchmarks.faults_parts.storm import JobName, Storm
from benchmarks.faults_parts.trial import DECK, FEWEST, Hung, Trial
from benchmarks.faults_parts.work import Verdict, Work, judge
from tests.support.faulty_s3 import faulty_s3
from tests.support.ray_nodes import Nodes, running_nodes
from tests.support.s3_server import running_s3

_NAMED = 20
"""Things lost, doubled or left over that are named."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="20 faults")
    parser.add_argument("--submit", action="store_true", help="jobs by `ray job submit`; default: by RAY_ADDRESS")
    parser.add_argument(
        "--logs", type=Path, help="folder for the jobs' output, which is kept; default: a temporary one"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    count = DECK if arguments.quick else arguments.faults
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        logs = arguments.logs or folder
        logs.mkdir(parents=True, exist_ok=True)
        with running_s3(folder / "s3") as server, faulty_s3(server.endpoint) as proxy:
            os.environ |= {"AWS_ENDPOINT_URL": proxy.endpoint, "OSASIS_CACHE_DIR": str(folder / "cache")}
            work = Work.make(server, folder)
            with running_nodes(FEWEST + 1, cpus=2, dashboard=arguments.submit) as nodes:
                trial = run(work, nodes, Storm(proxy), arguments.seed, count, logs, arguments.submit)
            return report(trial, judge(work))


def run(work: Work, nodes: Nodes, storm: Storm, seed: int, count: int, logs: Path, submit: bool) -> Trial:
    """All faults, and all work done after them."""
    dashboard = f"http://{nodes.cluster.webui_url}" if submit else None
    env = os.environ | {"PYTHONPATH": str(ROOT)} | ({} if submit else {"RAY_ADDRESS": nodes.address})

    def begin(name: JobName) -> Job:
        command = work.next_stylize() if name == "stylize" else work.next_train()
        return Job(name, command, env, logs / f"{name}.log", dashboard, lambda: nodes.processes(command[0], head=True))

    trial = Trial(nodes, storm, begin, seed, count)
    try:
        trial.run()
    except Hung as hung:
        print(f"hung: {hung}")
    return trial


def report(trial: Trial, verdict: Verdict) -> int:
    """Print what happened and what came of it; the exit code."""
    print("\n".join(trial.table()))
    print(f"\nrounds: {dict(trial.rounds)}; requests to storage: {trial.storm.requests}")
    print(f"ends of jobs, by exit code: { ({f'{name} {code}': n for (name, code), n in sorted(trial.ends.items())}) }")
    print(f"{trial.minutes:.1f} minutes; all processes together took up to {trial.most_bytes / 2**30:.1f} GiB")
    print(f"asked for and found: {dict(verdict.counts)}")
    for kind, names in (("lost", verdict.lost), ("doubled", verdict.doubled), ("left over", verdict.left)):
        for name in names[:_NAMED]:
            print(f"{kind}: {name}")
    print(f"{len(verdict.left)} files of states and leases, or temporary ones, left over")
    print(f"lost {len(verdict.lost)}, doubled {len(verdict.doubled)}, faults {len(trial.faults)}")
    return 0 if verdict.good and trial.is_through else 1


if __name__ == "__main__":
    sys.exit(main())
