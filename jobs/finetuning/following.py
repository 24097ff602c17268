"""How the processes of one style begin together, and what those do that follow the first.

The first says which style comes and where its state stands, or that there is none; it alone has the lease, writes
states and files, and reports. All go from one iteration to the next together.
"""

import gc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import ray.train

from cluster.runtime.lease import LeaseHeld
from cluster.storage import Storage, StorageError
from jobs.finetuning.contents import Contents, read_image
from jobs.finetuning.plan import StylePlan
from jobs.finetuning.saved_state import newest_state, states_of
from jobs.finetuning.warm_start import warm_start
from osasis.errors import OsasisError
from osasis.full_size import Texture
from osasis.ranks import PeerFailed, Ranks
from osasis.style_training import StyleTraining

FINAL = (OsasisError, LeaseHeld, ValueError, LookupError)
"""What would happen again however often a style is tried."""
_State = dict[str, Any] | None


def begin(
    plan: StylePlan,
    contents: Contents,
    storage: Storage,
    state_of: Callable[[], _State],
    ranks: Ranks,
    texture: Texture = (),
) -> StyleTraining:
    """The training of a style, where its state stands, in all its processes.

    Raises:
        PeerFailed: another process cannot begin.
    """
    with ranks.all_well():
        base, state = contents.base, state_of()
        read = partial(read_image, size=base.image_size, mode=plan.config.fit)
        reference, content = read(plan.image_uri), contents.of(plan)
        photo = read(plan.photo_uri) if plan.photo_uri and state is None else None
        start = warm_start(storage, base, plan.config, reference) if state is None else None
    return StyleTraining(
        base, reference, plan.config, photo=photo, content=content, state=state and state["training"], start=start,
        texture=texture, ranks=ranks,
    )  # fmt: skip


def call(plan: StylePlan, state: _State, ranks: Ranks) -> None:
    """Said by the first process: this style comes, and this is where it stands."""
    ranks.said((plan, _place(state)))


def follow(contents: Contents, storage: Storage, ranks: Ranks) -> None:
    """Train what the first process calls for, until it calls None."""
    while told := ranks.said(None):
        with suppress(*FINAL, StorageError, PeerFailed):  # it is the first process that tells
            _follow(*told, contents, storage, ranks)
        gc.collect()  # a training's graph holds cycles


def _follow(plan: StylePlan, place: int | None, contents: Contents, storage: Storage, ranks: Ranks) -> None:
    def state() -> _State:
        found = None if place is None else newest_state(states_of(storage, plan.run_name), lambda _: None)
        if _place(found) != place:
            raise PeerFailed(f"{plan.style_id}: this process does not find the state of iteration {place}")
        return found

    for _ in begin(plan, contents, storage, state, ranks).run():
        node_leaves(ranks, asked=False)
        with ranks.all_well():
            pass
        if ranks.said(False):  # the node is about to go
            return


def node_leaves(ranks: Ranks, *, asked: bool) -> bool:
    """Whether Ray says that this node is about to go, as spot machines are told; False unless the first process asks.

    Ray Train answers when all processes ask.
    """
    return ranks.said(asked) and ray.train.get_preemption_info() is not None


def _place(state: _State) -> int | None:
    """Iterations done in a state."""
    return None if state is None else int(state["training"]["finetuner"]["next_iteration"])
