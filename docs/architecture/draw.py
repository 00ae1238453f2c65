"""Draws the architecture picture of the README: `python docs/architecture/draw.py [--png FILE] [--out FILE]`."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

TARGET: Final = Path(__file__).with_name("architecture.svg")
INK, SOFT, BLUE, GREEN, SAND, GREY = "#1f2933", "#52606d", "#dbeafe", "#dcfce7", "#fef3c7", "#f1f5f9"
WIDTH, HEIGHT = 13.0, 7.4  # inches; the coordinates below are the same units
LINE_HEIGHT: Final = 0.27


@dataclass(frozen=True, slots=True)
class Box:
    """One part: a bold title over its lines."""

    x: float
    y: float
    width: float
    height: float
    title: str
    lines: tuple[str, ...] = ()
    fill: str = GREY
    planned: bool = False


BOXES: Final = (
    Box(0.3, 5.75, 2.7, 1.3, "definitions", ("Python or YAML", "headrace plan · apply"), SAND),
    Box(0.3, 3.35, 2.7, 1.3, "rows", ("Arrow, Parquet, CSV, JSON", "headrace write · materialize"), SAND),
    Box(0.3, 1.0, 2.7, 1.3, "model server", ("numpy, Arrow, pandas", "headrace.client or stubs"), SAND),
    Box(4.1, 5.75, 3.3, 1.3, "control_plane", ("registry: versions, pins, plans", "SQLite · watched by servers"), BLUE),
    Box(4.1, 1.0, 5.1, 3.65, "feature_server", (), GREEN),
    Box(4.4, 2.95, 2.1, 1.05, "writes", ("total order, tokens", "events into window tiles"), "white"),
    Box(6.8, 2.95, 2.1, 1.05, "shards", ("8 RocksDB with logs", "row log for the lake"), "white"),
    Box(6.8, 1.2, 2.1, 1.2, "row table", ("hot rows in memory", "one block an entity"), "white"),
    Box(4.4, 1.2, 2.1, 1.2, "read core", ("native HTTP/2 loop", "windows folded at T", "C, no GIL"), "white"),
    Box(10.2, 5.75, 2.5, 1.3, "telemetry", ("Prometheus · OpenTelemetry", "health, reflection"), GREY),
    Box(10.2, 4.1, 2.5, 0.75, "streams", ("Kafka",), "white", planned=True),
    Box(10.2, 2.35, 2.5, 1.35, "batch", ("drain into Iceberg", "historical joins, Spark", "training sets, skew"), BLUE),
    Box(
        10.2,
        1.0,
        2.5,
        1.0,
        "and later",
        ("vector search · lineage", "freshness · web UI"),
        "white",
        planned=True,
    ),
)
# From, to, label, where the label stands beside the middle, planned.
ARROWS: Final = (
    ((3.0, 6.4), (4.1, 6.4), "gRPC", (0.0, 0.14), False),
    ((5.75, 5.75), (5.75, 4.65), "registry watch", (0.78, 0.0), False),
    ((3.0, 3.55), (4.4, 3.55), "Arrow batches", (-0.14, 0.14), False),
    ((3.0, 1.77), (4.4, 1.77), "one batched call", (-0.14, 0.14), False),
    ((6.5, 3.52), (6.8, 3.52), "", (0.0, 0.0), False),
    ((7.85, 2.95), (7.85, 2.4), "fill, apply", (0.55, 0.0), False),
    ((6.8, 1.77), (6.5, 1.77), "", (0.0, 0.0), False),
    ((7.4, 6.4), (10.2, 6.4), "", (0.0, 0.0), False),
    ((8.6, 4.65), (10.2, 5.9), "", (0.0, 0.0), False),
    ((10.2, 4.5), (9.2, 4.3), "", (0.0, 0.0), True),
    ((8.9, 3.35), (10.2, 3.35), "row log", (0.15, 0.14), False),
    ((10.2, 2.7), (9.2, 2.7), "materialize", (0.0, -0.16), False),
)


def draw() -> Figure:
    """The whole picture."""
    mpl.rcParams.update({"svg.hashsalt": "headrace", "svg.fonttype": "none", "font.family": "DejaVu Sans"})
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    for box in BOXES:
        _draw_box(axes, box)
    for start, end, label, shift, planned in ARROWS:
        _draw_arrow(axes, start, end, planned)
        middle = ((start[0] + end[0]) / 2 + shift[0], (start[1] + end[1]) / 2 + shift[1])
        axes.text(*middle, label, ha="center", va="center", fontsize=8.5, color=SOFT)
    axes.text(0.3, 0.45, "solid: runs today on one machine, most of it by `headrace up`", fontsize=9.5, color=SOFT)
    axes.text(10.2, 0.45, "dashed: not there yet", fontsize=9.5, color=SOFT)
    return figure


def _draw_box(axes: Axes, box: Box) -> None:
    patch = FancyBboxPatch(
        (box.x, box.y),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=box.fill,
        edgecolor=SOFT if box.planned else INK,
        linestyle="--" if box.planned else "-",
        linewidth=1.1,
    )
    axes.add_patch(patch)
    color = SOFT if box.planned else INK
    middle = box.x + box.width / 2
    centred = box.y + box.height / 2 + LINE_HEIGHT / 2 * len(box.lines)
    top = centred if box.lines else box.y + box.height - LINE_HEIGHT  # a box of boxes has its title at the top
    axes.text(middle, top, box.title, ha="center", va="center", fontsize=11.5, weight="bold", color=color)
    for number, line in enumerate(box.lines, start=1):
        axes.text(middle, top - LINE_HEIGHT * number, line, ha="center", va="center", fontsize=9, color=color)


def _draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], planned: bool) -> None:
    style = "--" if planned else "-"
    color = SOFT if planned else INK
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=13, linestyle=style, color=color, shrinkA=0, shrinkB=0
        )
    )


def main() -> None:
    """Writes the SVG, without the date that would change it at every run."""
    parser = argparse.ArgumentParser(description="Draws the architecture picture.")
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    figure = draw()
    figure.savefig(options.out, format="svg", metadata={"Date": None, "Creator": None})
    text = "\n".join(line.rstrip() for line in options.out.read_text(encoding="utf-8").splitlines())
    options.out.write_text(text + "\n", encoding="utf-8")
    if options.png:
        figure.savefig(options.png, format="png", dpi=100)


if __name__ == "__main__":
    main()
