"""The progress of a job: one bar whose title is the stage that it is in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from control_plane.cli.session import Session


class Stages(Protocol):
    """Told the stage, the rows done in it and the rows that it has."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


@contextmanager
def stages(session: Session) -> Iterator[Stages]:
    """A bar on stderr where a person sees it, and nothing in a pipe."""
    if not session.err.isatty():
        yield lambda stage, done, total: None
        return
    from rich import progress as bars  # lazy: only a terminal shows a bar
    from rich.console import Console  # lazy: as above

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=Console(file=session.err), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total or None)
