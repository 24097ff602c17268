"""The probe set: a few portraits on which every style is previewed, so that styles can be compared.

A style's preview is one picture of two rows, as many columns as the set has portraits: the photographs as the base saw
them, and below each its stylization.
"""

from importlib.resources import files

PROBE_SET = "portraits-1"
"""Recorded with every preview. The photographs of a set never change: another choice is another set."""

PROBE_SETS = {
    PROBE_SET: (
        "glasses", "long-fair-hair", "moustache", "coloured-glasses", "smile", "long-dark-hair", "turned-head",
        "grey-curls",
    )
}  # fmt: skip
"""Names of the portraits of every set, in the order of a preview's columns."""


def probe_photos() -> dict[str, bytes]:
    """The current set's photographs: name → bytes of a 256 × 256 JPEG, in the order of :data:`PROBE_SETS`."""
    folder = files("catalog") / "probes" / PROBE_SET
    return {name: (folder / f"{name}.jpg").read_bytes() for name in PROBE_SETS[PROBE_SET]}
