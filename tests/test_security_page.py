"""docs/security.md names a test for each promise; each of them exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_promise_of_the_security_page_has_its_test() -> None:
    _, promises = (ROOT / "docs" / "security.md").read_text().split("| threat | promise | test |")
    rows = [line for line in promises.splitlines() if line.startswith("| ")]
    files = list((ROOT / "tests").rglob("test_*.py"))
    defined = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    defined |= {str(path.relative_to(ROOT)) for path in files}
    assert len(rows) >= 10
    for row in rows:
        named = set(re.findall(r"`([^`]*test_[^`]*)`", row.rsplit("|", 2)[1]))
        assert named, row
        assert named <= defined, row
