"""The committed page and picture are what the committed measurement makes of them."""

import shutil
from pathlib import Path

import pytest

from loadtest.profile import page
from loadtest.profile.flame import frames

NAMES = ("loop.folded", "loop.json", "loop.svg")


def test_page_and_picture_come_from_the_measurement(repository: Path, tmp_path: Path) -> None:
    shown, folder = repository / "docs/performance.md", tmp_path / "performance"
    shutil.copytree(repository / "docs/performance", folder)
    (folder / "loop.svg").unlink()
    folder.with_suffix(".md").write_text(page.filled(shown.read_text(), ""))
    page.write(folder)
    assert folder.with_suffix(".md").read_text() == shown.read_text()
    assert (folder / "loop.svg").read_text() == (repository / "docs/performance/loop.svg").read_text()
    assert sorted(path.name for path in (repository / "docs/performance").iterdir()) == sorted(NAMES)
    assert "(performance/loop.svg)" in shown.read_text()


def test_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="once"):
        page.filled("no marks", "table")


def test_boxes_lie_within_their_callers() -> None:
    boxes = {box.stack: box for box in frames({("a", "b"): 1, ("a", "c"): 2, ("a",): 1})}
    assert boxes[("a",)].share == 1.0
    assert (boxes[("a", "b")].start, boxes[("a", "b")].share) == (0.0, 0.25)
    assert (boxes[("a", "c")].start, boxes[("a", "c")].share) == (0.25, 0.5)
