"""The committed architecture picture is what its script draws."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path("docs/architecture")


def test_picture_is_what_the_script_draws(repository: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.svg"
    script = repository / FOLDER / "draw.py"
    subprocess.run([sys.executable, str(script), "--out", str(drawn)], check=True, timeout=120)
    assert drawn.read_text() == (repository / FOLDER / "architecture.svg").read_text()


def test_readme_shows_the_picture(repository: Path) -> None:
    assert str(FOLDER / "architecture.svg") in (repository / "README.md").read_text()
