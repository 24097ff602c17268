"""The states that a training saves as it goes, read so that a damaged one costs iterations and not the training."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cluster.storage import NotFound, Storage

STATE = "state.pt"
_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's list of a run's checkpoints."""


def newest_state(run: Storage, say: Callable[[str], object]) -> dict[str, Any] | None:
    """The newest state of a run that can be read, for the CPU; None to begin anew. ``say`` is told of damaged ones.

    Raises:
        StorageError: storage does not answer.
    """
    # Ray Train names its folders by the time of saving.
    names = sorted((name for name in run.list_files() if name.endswith(f"/{STATE}")), reverse=True)
    for i, name in enumerate(names):
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / STATE
            run.download_file(name, local)
            try:
                state: dict[str, Any] = torch.load(local, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises one of many kinds, depending on where a file is cut
                rest = "the one before is used" if i + 1 < len(names) else "the training starts over"
                say(f"{run.child_uri(name)}: damaged ({type(error).__name__}); {rest}")
            else:
                return state
    return None


def drop_damaged_snapshot(run: Storage, say: Callable[[str], object]) -> None:
    """Ray Train refuses to start a run whose list of checkpoints was cut short; the states are found without it."""
    try:
        json.loads(run.read_bytes(_SNAPSHOT))
    except NotFound:
        return
    except ValueError:
        say(f"{run.child_uri(_SNAPSHOT)}: damaged; it is removed, and written again")
        run.delete(_SNAPSHOT)
