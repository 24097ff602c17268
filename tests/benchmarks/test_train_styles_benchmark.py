"""benchmarks/train_styles.py: what its report makes of runs; nothing is trained."""

from typing import Any

from benchmarks.train_styles import Results, _report


def run(*points: tuple[int, float, float, float]) -> list[dict[str, Any]]:
    """One run by (iteration, seconds, style, structure) of its curve."""
    names = ("iteration", "seconds", "style", "structure")
    curve = [dict(zip(names, point, strict=True)) | {"edges": 0.9} for point in points]
    return [{"curve": curve, "bytes": 10**6, "state_bytes": 10**6, "flop": 10**12, "memory": 10**9}]


RESULTS: Results = {
    ("release", "a"): run((4, 120, 0.5, 0.10), (6, 180, 0.4, 0.09)),
    ("bank", "a"): [run((1, 20, 0.6, 0.2))[0]],
    ("bank", "b"): run((3, 60, 0.5, 0.10), (6, 120, 0.4, 0.09)),  # stands in for the release on b
    ("spn", "a"): run((4, 12, 0.405, 0.092), (8, 20, 0.39, 0.09)),
    ("spn", "b"): run((4, 12, 0.6, 0.09), (8, 24, 0.409, 0.094)),
    ("adapters", "a"): run((4, 10, 0.4, 0.09)),
    ("adapters", "b"): run((4, 10, 0.5, 0.09)),  # never as near
}


def rows(report: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("|")]
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines}


def test_a_way_costs_the_seconds_until_it_is_as_good_as_the_release() -> None:
    report = _report(["release", "bank", "spn", "adapters"], ["a", "b"], RESULTS)
    found = rows(report)
    assert found["a"] == ["180", "12", "15.0", "10", "18.0"]
    assert found["b"] == ["180", "24", "7.5", "10 (not equal)", "18.0"]  # six iterations at the release's 30 s
    assert found["spn"][4:6] == ["18 (equal on 2 of 2)", "10.0"]
    assert found["adapters"][4] == "10 (equal on 1 of 2)"


def test_the_last_line_is_of_the_cheapest_way_that_is_equal_on_all_styles() -> None:
    assert _report(["release", "bank", "spn", "adapters"], ["a", "b"], RESULTS).endswith("\ncheaper: 10.0")
    assert _report(["release", "bank", "adapters"], ["a"], RESULTS).endswith("\ncheaper: 18.0")
