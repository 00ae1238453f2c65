"""What the demonstration prints, each line with the seconds since its start."""

from collections.abc import Sequence
from time import perf_counter
from typing import TextIO

from control_plane.cli.demo.replay import Difference
from control_plane.cli.output import print_table


class Screen:
    """Lines and tables for a person who follows a run."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self._started = perf_counter()

    def say(self, text: str) -> None:
        """One line, seen at once."""
        self.out.write(f"[{perf_counter() - self._started:5.1f} s] {text}\n")
        self.out.flush()

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table below the last line."""
        print_table(heads, rows, self.out)

    def differences(
        self, title: str, heads: tuple[str, str], names: Sequence[str], found: Sequence[Difference]
    ) -> None:
        """The first differences; `names` are those of their flights."""
        self.say(title)
        rows = [(name, one.column, one.served, one.expected) for name, one in zip(names, found, strict=True)]
        self.table(("flight", "feature", *heads), rows)
