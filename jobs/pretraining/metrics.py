"""TensorBoard event files of a training, kept in storage."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from cluster.storage import Storage


class Metrics:
    """Writes scalars to a local event file and copies it to ``target``; with ``target`` None it does nothing.

    A resumed run writes a further file; steps that are in both, beyond the killed run's checkpoint, are equal.
    """

    def __init__(self, target: Storage | None, first_step: int) -> None:
        self._target = target
        if target is not None:
            self._folder = tempfile.TemporaryDirectory()
            self._writer = SummaryWriter(self._folder.name, purge_step=first_step + 1)  # type: ignore[no-untyped-call]

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self._target is not None:
            for name, value in values.items():
                if name != "step":
                    self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]

    def upload(self) -> None:
        """What was written so far becomes durable."""
        if self._target is not None:
            self._writer.flush()  # type: ignore[no-untyped-call]
            for path in Path(self._folder.name).iterdir():
                self._target.upload_file(path, path.name)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._target is not None:
            if kind is None:
                self.upload()
            self._writer.close()  # type: ignore[no-untyped-call]
            self._folder.cleanup()
