"""Draws the pictures of docs/values.md: `python docs/values/draw.py [--out FOLDER] [--png]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FOLDER: Final = Path(__file__).parent
INK, SOFT, BLUE, GREEN, SAND, RED = "#1f2933", "#52606d", "#bfdbfe", "#bbf7d0", "#fde68a", "#b91c1c"
WIDTH: Final = 11.0
EVENTS: Final = (2, 7, 11, 14, 18, 23, 26)  # minutes of the first picture
HOP, WINDOW, READ = 5, 15, 27


def windows() -> Figure:
    """One window of 15 minutes by 5, read at minute 27: which events count, and of which tiles they come."""
    figure, axes = _page(3.9, (-1.5, 33), (-2.6, 4.6))
    _axis(axes, 0, range(0, 31, HOP), "event time, minutes")
    start = (READ - WINDOW) // HOP * HOP
    for first in range(0, 30, HOP):
        is_in = start <= first < READ
        axes.add_patch(Rectangle((first, 0.9), HOP, 0.6, facecolor=BLUE if is_in else "white", edgecolor=INK, lw=0.8))
        axes.text(first + HOP / 2, 1.2, f"({first}, {first + HOP}]", ha="center", va="center", fontsize=8.5, color=INK)
    axes.text(-1.3, 1.2, "tiles", ha="left", va="center", fontsize=9, color=SOFT)
    for event in EVENTS:
        counts = start < event <= READ
        axes.plot(event, 0.35, marker="o", ms=8, color=INK if counts else "white", mec=INK)
    axes.plot(29, 0.35, marker="o", ms=8, color="white", mec=RED)
    axes.text(29, -0.28, "after T", ha="center", va="top", fontsize=8, color=RED)
    axes.annotate("", (start, 2.3), (READ, 2.3), arrowprops={"arrowstyle": "<->", "color": INK})
    text = f"value at T = {READ} covers ({start}, {READ}]: start = floor((T - {WINDOW}) / {HOP}) · {HOP}"
    axes.text((start + READ) / 2, 2.45, text, ha="center", va="bottom", fontsize=9.5, color=INK)
    axes.plot([READ, READ], [-0.1, 3.9], color=RED, lw=1.2)
    axes.text(READ, 4.0, f"read at T = {READ}", ha="center", va="bottom", fontsize=9, color=RED)
    axes.text(start, 3.5, "start, itself left out", ha="center", va="bottom", fontsize=9, color=SOFT)
    axes.plot([start, start], [-0.1, 3.4], color=SOFT, lw=1, ls="--")
    axes.text(-1.3, -2.1, "● counts   ○ does not", fontsize=9, color=INK)
    axes.text(
        6.2,
        -2.1,
        "the window jumps forward with its hop, so between hops it grows: 15 to 20 minutes",
        fontsize=9,
        color=SOFT,
    )
    return figure


def asof() -> Figure:
    """One feature of one entity: events, when they were written, and what joins at four moments see."""
    figure, axes = _page(4.6, (-3.0, 33), (-2.4, 5.2))
    _axis(axes, 0, range(0, 31, 5), "event time, and moment T of the entity row")
    events = ((3, 3, "10"), (11, 12, "20"), (16, 24, "30, late"), (22, 22, "40"))
    for event, written, name in events:
        axes.plot(event, 0.35, marker="o", ms=8, color=INK)
        axes.text(event, -0.25, f"value {name}", ha="center", va="top", fontsize=8.5, color=INK)
        if written != event:
            axes.annotate(
                "", (written, 0.35), (event, 0.35), arrowprops={"arrowstyle": "->", "color": RED, "ls": "--", "lw": 1}
            )
            axes.text((event + written) / 2, 0.5, "available", ha="center", va="bottom", fontsize=7.5, color=RED)
    rows = (
        (1, "MISSING", "nothing happened yet"),
        (10, "10", ""),
        (20, "20", "30 is not available yet"),
        (28, "40", ""),
    )
    for number, (moment, value, why) in enumerate(rows):
        height = 1.45 + 0.62 * number
        axes.plot([moment, moment], [0.0, height], color=SOFT, lw=0.8, ls=":")
        axes.plot(moment, height, marker="v", ms=8, color=RED)
        text = f"T = {moment}: {value}" + (f"   ({why})" if why else "")
        side = "left" if moment < 25 else "right"
        axes.text(
            moment + (0.6 if side == "left" else -0.6), height, text, ha=side, va="center", fontsize=9.5, color=INK
        )
    axes.add_patch(Rectangle((22, 4.25), 8, 0.55, facecolor=SAND, edgecolor=INK, lw=0.8))
    axes.text(26, 4.52, "TTL of 8: EXPIRED from T = 30 on", ha="center", va="center", fontsize=8.5, color=INK)
    axes.text(
        -2.8,
        -2.1,
        "of the events up to T that were available by T the greatest wins; with a cut-off K, none written after K",
        fontsize=9,
        color=SOFT,
    )
    return figure


PICTURES: Final = {"windows": windows, "asof": asof}


def _page(height: float, x: tuple[float, float], y: tuple[float, float]) -> tuple[Figure, Axes]:
    mpl.rcParams.update({"svg.hashsalt": "headrace", "svg.fonttype": "none", "font.family": "DejaVu Sans"})
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=x, ylim=y)
    axes.axis("off")
    return figure, axes


def _axis(axes: Axes, height: float, ticks: Sequence[int], label: str) -> None:
    axes.annotate("", (ticks[-1] + 2, height), (ticks[0] - 1, height), arrowprops={"arrowstyle": "->", "color": INK})
    for tick in ticks:
        axes.plot([tick, tick], [height - 0.08, height + 0.08], color=INK, lw=1)
        axes.text(tick, height - 0.75, str(tick), ha="center", va="top", fontsize=8.5, color=SOFT)
    axes.text(ticks[-1] + 2, height - 1.2, label, ha="right", va="top", fontsize=8.5, color=SOFT)


def main() -> None:
    """Writes the SVGs, without the date that would change them at every run."""
    parser = argparse.ArgumentParser(description="Draws the pictures of docs/values.md.")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--png", action="store_true", help="PNGs beside them, to look at")
    options = parser.parse_args()
    for name, draw in PICTURES.items():
        figure, path = draw(), options.out / f"{name}.svg"
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        text = "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
        path.write_text(text + "\n", encoding="utf-8")
        if options.png:
            figure.savefig(path.with_suffix(".png"), format="png", dpi=100)


if __name__ == "__main__":
    main()
