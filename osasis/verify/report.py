"""What a verification found: errors of single values, gathered by file."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """``relative``: norm of the difference over the norm of the golden value; ``absolute``: its largest element."""

    file: str
    name: str
    relative: float
    absolute: float


@dataclass
class Report:
    """Every value that was compared, and what could not be."""

    tolerance: float
    differences: list[Difference] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Optional files that are missing."""
    notes: list[str] = field(default_factory=list)

    def compare(self, file: str, name: str, ours: Tensor, golden: Tensor) -> None:
        """Another shape, or NaN on one side, is an infinite difference."""
        if ours.shape != golden.shape:
            self.add(file, name, math.inf, math.inf)
            return
        theirs = golden.detach().cpu().double()
        gap = ours.detach().cpu().double() - theirs
        scale = theirs.norm().item() or 1.0
        self.add(file, name, gap.norm().item() / scale, gap.abs().max().item() if gap.numel() else 0.0)

    def compare_number(self, file: str, name: str, ours: float, golden: float) -> None:
        gap = abs(ours - golden)
        self.add(file, name, gap / abs(golden) if golden else gap, gap)

    def add(self, file: str, name: str, relative: float, absolute: float) -> None:
        relative, absolute = (math.inf if math.isnan(value) else value for value in (relative, absolute))
        self.differences.append(Difference(file, name, relative, absolute))

    @property
    def passed(self) -> bool:
        """Whether everything is within tolerance; a report without a comparison is no success."""
        return bool(self.differences) and all(d.relative <= self.tolerance for d in self.differences)

    def of(self, file: str) -> list[Difference]:
        return [d for d in self.differences if d.file == file]

    def failures(self) -> list[Difference]:
        return [d for d in self.differences if not d.relative <= self.tolerance]

    def table(self) -> str:
        """One line a file: how many values, the largest errors, and where the largest relative one is."""
        rows = [("file", "values", "max relative", "max absolute", "at")]
        for file in dict.fromkeys(d.file for d in self.differences):
            found = self.of(file)
            worst = max(found, key=lambda d: d.relative)
            mark = "" if worst.relative <= self.tolerance else "  PAST TOLERANCE"
            absolute = max(d.absolute for d in found)
            rows.append((file, str(len(found)), f"{worst.relative:.1e}", f"{absolute:.1e}", worst.name + mark))
        rows += [(file, "-", "-", "-", "not in the folder") for file in self.absent]
        return "\n".join(_aligned(rows))


def _aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
