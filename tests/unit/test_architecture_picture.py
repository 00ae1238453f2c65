"""The committed pictures are what their scripts draw, and a page shows each."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path("docs/architecture")
VALUES = Path("docs/values")


def test_picture_is_what_the_script_draws(repository: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.svg"
    script = repository / FOLDER / "draw.py"
    subprocess.run([sys.executable, str(script), "--out", str(drawn)], check=True, timeout=120)
    assert drawn.read_text() == (repository / FOLDER / "architecture.svg").read_text()


def test_readme_shows_the_picture(repository: Path) -> None:
    assert str(FOLDER / "architecture.svg") in (repository / "README.md").read_text()


def test_pictures_of_the_value_rules_are_what_their_script_draws(repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(repository / VALUES / "draw.py"), "--out", str(tmp_path)], check=True, timeout=120
    )
    drawn = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert drawn == sorted(path.name for path in (repository / VALUES).glob("*.svg"))
    page = (repository / "docs" / "values.md").read_text()
    for name in drawn:
        assert (tmp_path / name).read_text() == (repository / VALUES / name).read_text()
        assert f"(values/{name})" in page
