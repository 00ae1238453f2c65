"""Writes what docs/performance.md shows of a profile: the picture, and the table of stages between its marks.

python -m loadtest.profile.page draws both anew from loop.folded and loop.json, which loadtest.profile.run measured.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from loadtest.peers.processes import ROOT
from loadtest.profile.flame import draw
from loadtest.profile.stacks import Folded, from_text
from loadtest.profile.stages import shares

FOLDER: Final = ROOT / "docs" / "performance"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def write(folder: Path = FOLDER) -> None:
    """Draws the picture, and fills the page where there is one."""
    folded, figures = from_text((folder / "loop.folded").read_text()), json.loads((folder / "loop.json").read_text())
    draw(folded, title_of(figures), folder / "loop.svg")
    page = folder.with_suffix(".md")
    if page.exists():
        page.write_text(filled(page.read_text(), table(folded, figures)))


def title_of(figures: dict[str, Any]) -> str:
    """One line over the picture."""
    return (
        f"native loop, {figures['scenario']}: {figures['cpu_us_per_request']} us of CPU a request, "
        f"{figures['samples']:,} samples of {figures['event']}"
    )


def table(folded: Folded, figures: dict[str, Any]) -> str:
    """Stages in the order of a read, with their share of the samples and of the CPU of a request."""
    load = f"{figures['requests_per_s']:,.0f} requests/s of {figures['scenario']}, {figures['connections']} connections"
    cost = f"**{figures['cpu_us_per_request']} us of server CPU each**"
    lines = [
        f"{load}: {cost}. {figures['samples']:,} samples of {figures['event']}.",
        f"{figures['machine']}; commit {figures['commit']}.",
        "",
        "| stage | what it does | share | us a request |",
        "|---|---|---:|---:|",
    ]
    for stage, share in shares(folded):
        lines.append(f"| {stage.name} | {stage.what} | {share:.1%} | {share * figures['cpu_us_per_request']:.2f} |")
    return "\n".join(lines)


def filled(page: str, measured: str) -> str:
    """The page with what stands between its marks replaced."""
    marks = re.compile(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(marks.findall(page)) != 1:
        raise ValueError(f"the page must have {BEGIN} and {END} once")
    return marks.sub(lambda _: f"{BEGIN}\n{measured}\n{END}", page)


if __name__ == "__main__":
    write(FOLDER)
    sys.exit(0)
