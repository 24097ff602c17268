"""What of a group of inputs is still to do: the inputs less what the manifest has decided."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from catalog.manifest import Manifest
from jobs.streaming.inputs import Item
from jobs.streaming.variants import Variant


@dataclass
class Tally:
    """Counts of inputs, and of (input, variant) pairs by what was decided before and now."""

    inputs: int = 0
    duplicates: int = 0
    """Inputs named more than once in a table; each is done once."""
    before: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """For the run record: all pairs of this command by status, whichever run decided them."""
        total = self.before + self.now
        statuses = {status: total[status] for status in ("done", "rejected", "failed")}
        return {"inputs": self.inputs, "duplicates": self.duplicates, **statuses, "decided_before": self.before.total()}

    def check(self, variants: int) -> None:
        """Of a run that came to its end.

        Raises:
            RuntimeError: pairs were lost or decided twice; a defect of the program.
        """
        pairs, outcomes = (self.inputs - self.duplicates) * variants, (self.before + self.now).total()
        if outcomes != pairs:
            raise RuntimeError(f"{pairs} pairs of input and variant, but {outcomes} outcomes: {self.counts()}")


def outstanding(
    items: Sequence[Item],
    variants: Sequence[Variant],
    manifest: Manifest,
    tally: Tally,
    *,
    retry_failed: bool,
) -> list[dict[str, Any]]:
    """Rows of WORK for the inputs that lack a variant; the rest is counted in ``tally``."""
    unique = {item.uri: item for item in items}
    tally.inputs += len(items)
    tally.duplicates += len(items) - len(unique)
    decided = manifest.decided(list(unique), {variant.params_hash for variant in variants})
    work = []
    for uri, item in unique.items():
        missing = []
        for variant in variants:
            status = decided.get(uri, {}).get(variant.pair)
            if status is None or (status == "failed" and retry_failed):
                missing.append(variant.label)
            else:
                tally.before[status] += 1
        if missing:
            work.append({"input_uri": uri, "key": item.key, "locator": item.locator, "missing": missing})
    return work
