"""A picture of the figures with a target: how far each is from it, with its rounds."""

from pathlib import Path
from typing import Final

from loadtest.peers.result import Figure, Report

MET: Final = "#2a7f62"
MISSED: Final = "#b3372f"


def draw(report: Report, path: Path) -> None:
    """Writes a PNG: one row a figure, value over target on a log scale, better to the right."""
    import matplotlib as mpl  # heavy, and only the full run draws

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # chooses its backend when imported

    figures = [one for one in report.figures if isinstance(one, Figure) and one.target]
    chart, axes = plt.subplots(figsize=(9, 1.2 + 0.5 * len(figures)))
    for row, figure in enumerate(reversed(figures)):
        colour = MET if figure.ok else MISSED
        axes.plot([margin(figure, one) for one in figure.rounds], [row] * len(figure.rounds), "|", color=colour, ms=10)
        axes.plot([margin(figure, figure.value)], [row], "o", color=colour)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(figures)))
    axes.set_yticklabels([f"{one.id}\n{one.value:.4g} {one.unit}, target {one.target:g}" for one in reversed(figures)])
    axes.set_xlabel("times better than the target (dot: median, ticks: rounds)")
    axes.set_title(f"{report.area}, {report.scale['name']} run at {report.commit}\n{report.machine}", fontsize=9)
    chart.tight_layout()
    chart.savefig(path, dpi=120)
    plt.close(chart)


def margin(figure: Figure, value: float) -> float:
    """How many times better than its target a value is; below 1 it misses."""
    assert figure.target is not None
    return value / figure.target if figure.better == "higher" else figure.target / max(value, 1e-9)
