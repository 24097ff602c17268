"""benchmarks/train_styles.py: what its report makes of runs; nothing is trained."""

from benchmarks.train_styles_parts.report import Curve, Curves, Paces, write_report


def curve(*points: tuple[int, float, float]) -> Curve:
    """By iteration, style and structure."""
    return [dict(zip(("iteration", "style", "structure"), point, strict=True)) | {"edges": 0.9} for point in points]


def paces(**seconds: float) -> Paces:
    rest = {"bytes": 10**6, "state_bytes": 10**6, "flop": 10**12, "memory": 10**9}
    return {name: rest | {"seconds": value} for name, value in seconds.items()}


PACES = paces(release=30, bank=20, spn=3, adapters=2.5)
CURVES: Curves = {
    ("release", "a"): curve((4, 0.5, 0.10), (6, 0.4, 0.09)),
    ("release", "b"): curve((4, 0.5, 0.10), (6, 0.4, 0.09)),
    ("spn", "a"): curve((4, 0.405, 0.092), (8, 0.39, 0.09)),
    ("spn", "b"): curve((4, 0.6, 0.09), (8, 0.409, 0.094)),
    ("adapters", "a"): curve((4, 0.4, 0.09)),
    ("adapters", "b"): curve((4, 0.5, 0.09)),  # never as near
}


def rows(report: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("|")]
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines}


def test_a_way_costs_the_seconds_until_it_is_as_good_as_the_release() -> None:
    found = rows(write_report(["a", "b"], PACES, CURVES))
    assert found["a"] == ["180", "12", "15.0", "10", "18.0"]
    assert found["b"] == ["180", "24", "7.5", "10 (not equal)", "18.0"]
    assert found["spn"][4:6] == ["18 (equal on 2 of 2)", "10.0"]
    assert found["adapters"][4] == "10 (equal on 1 of 2)"


def test_the_last_line_is_of_the_cheapest_way_that_is_equal_on_all_styles() -> None:
    assert write_report(["a", "b"], PACES, CURVES).endswith("\ncheaper: 10.0")
    without = {name: pace for name, pace in PACES.items() if name != "spn"}
    assert write_report(["a"], without, CURVES).endswith("\ncheaper: 18.0")
