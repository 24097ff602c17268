"""How far each training is: bars on a terminal, a line every few seconds in a log."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cluster.runtime.metrics import gauge

_LOG_EVERY_S = 15.0


class TrainingProgress:
    def __init__(self, console: Console, totals: dict[str, int]) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks = {style: self._bars.add_task(style, total=total, loss="-") for style, total in totals.items()}
        self._logged = time.monotonic()

    def __enter__(self) -> "TrainingProgress":
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bars.stop()

    def show(self, rows: dict[str, tuple[int, int, float]], training: int) -> None:
        """``rows``: style → (iterations done, of, loss), of those with news; ``training``: styles that workers have."""
        gauge("osasis_styles_training", training)
        for style, (done, _, loss) in rows.items():
            gauge("osasis_style_loss", loss, style=style)
            self._bars.update(self._tasks[style], completed=done, loss=f"{loss:.2f}")
        if not self._console.is_terminal and rows and time.monotonic() - self._logged > _LOG_EVERY_S:
            self._logged = time.monotonic()
            self._console.print("  ".join(f"{s} {done}/{of} loss {loss:.2f}" for s, (done, of, loss) in rows.items()))
