"""Draws folded stacks as a flame graph: width is time, the innermost frames are on top."""

from pathlib import Path
from typing import Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from loadtest.profile.stacks import KERNEL, Folded, Stack
from loadtest.profile.stages import REST, STAGES, stage_of

WIDTH: Final = 16.0  # inches
FRAME_HEIGHT: Final = 0.26
SHARE_MIN: Final = 0.001  # frames narrower than a thousandth are left out
CHARACTER: Final = 0.068  # width of one in inches, at the size below
FONT_POINTS: Final = 7.5
INK: Final = "#1f2933"
COLOURS: Final = (
    *("#fca5a5", "#fdba74", "#fde68a", "#bfdbfe", "#93c5fd", "#ddd6fe"),
    *("#bbf7d0", "#86efac", "#5eead4", "#6ee7b7", "#a7f3d0", "#e2e8f0"),
)


class Frame(NamedTuple):
    """One box: a frame under all that called it."""

    stack: Stack
    start: float
    share: float


def frames(folded: Folded) -> list[Frame]:
    """Boxes of every level, callees above their callers, each level in the order of names."""
    total = sum(folded.values())
    found: list[Frame] = []

    def place(stacks: dict[Stack, int], depth: int, start: float) -> None:
        by_name: dict[str, dict[Stack, int]] = {}
        for stack, count in stacks.items():
            if len(stack) > depth:
                by_name.setdefault(stack[depth], {})[stack] = count
        for _, group in sorted(by_name.items()):
            share = sum(group.values()) / total
            if share >= SHARE_MIN:
                found.append(Frame(next(iter(group))[: depth + 1], start, share))
                place(group, depth + 1, start)
            start += share

    place(folded, 0, 0.0)
    return found


def draw(folded: Folded, title: str, out: Path) -> None:
    """Writes the picture; the suffix of the file says which kind."""
    boxes = frames(folded)
    depth = max(len(box.stack) for box in boxes)
    height = (depth + 4) * FRAME_HEIGHT
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "headrace", "font.family": "sans-serif"}
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, height)
    axes.set_axis_off()
    colours = dict(zip((stage.name for stage in (*STAGES, REST)), COLOURS, strict=True))
    axes.text(0.005, height - 0.2, title, fontsize=10, color=INK, va="center", weight="bold")
    for number, (name, colour) in enumerate(colours.items()):
        left = 0.005 + number * 0.082
        axes.add_patch(Rectangle((left, height - 0.62), 0.012, 0.18, facecolor=colour, linewidth=0))
        axes.text(left + 0.015, height - 0.53, name, fontsize=FONT_POINTS, color=INK, va="center")
    for box in boxes:
        low = (len(box.stack) - 1) * FRAME_HEIGHT + 0.1
        face = colours[stage_of(box.stack).name]
        axes.add_patch(
            Rectangle((box.start, low), box.share, FRAME_HEIGHT, facecolor=face, edgecolor="white", linewidth=0.5)
        )
        label = shortened(box)
        if label:
            axes.text(box.start + 0.001, low + FRAME_HEIGHT / 2, label, fontsize=FONT_POINTS, color=INK, va="center")
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None, dpi=110)


def shortened(box: Frame) -> str:
    """As much of the name as fits, or nothing."""
    name, room = box.stack[-1].removesuffix(f" {KERNEL}"), int(box.share * WIDTH / CHARACTER) - 1
    if len(name) <= room:
        return name
    return f"{name[: room - 1]}…" if room >= 4 else ""
