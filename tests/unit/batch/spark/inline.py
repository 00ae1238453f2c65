"""Runs the tasks of a job here, one after the other, through the same pickles as Spark."""

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pyspark import cloudpickle

from batch.spark import historical, spread, stored_rows, window_history


class Inline:
    """Stands in for a session. `tries` runs each task so often, as speculation does; what the first left is lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tries: int = 1) -> None:
        self.stages: list[tuple[str, int]] = []
        self._tries = tries
        for module in (historical, spread, stored_rows, window_history):
            monkeypatch.setattr(module, "run_tasks", self.run)

    def run(self, _session: object, what: str, work: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        """In place of run_tasks."""
        self.stages.append((what, len(tasks)))
        carried = cloudpickle.dumps(work)  # type: ignore[no-untyped-call]
        return [self._done(carried, task) for task in tasks]

    def _done(self, carried: bytes, task: Any) -> Any:  # Any: as Spark has them
        done = [pickle.loads(carried)(pickle.loads(pickle.dumps(task))) for _ in range(self._tries)]
        return pickle.loads(pickle.dumps(done[-1]))
