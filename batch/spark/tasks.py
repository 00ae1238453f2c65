"""Tasks on Spark, which schedules and repeats them: their rows lie in files, and only small values pass through it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from batch.spark.workers import held_to_kernel, translated

Task = TypeVar("Task")
Done = TypeVar("Done")


def run_tasks(session: SparkSession, what: str, work: Callable[[Task], Done], tasks: Sequence[Task]) -> list[Done]:
    """What `work` returns for every task, in their order. A task whose worker ended is run again on another."""
    if not tasks:
        return []
    context = session.sparkContext
    context.setJobDescription(what)
    try:
        found: list[Done] = context.parallelize(tasks, len(tasks)).map(held_to_kernel(work)).collect()
        return found
    except Py4JJavaError as exc:
        raise translated(exc) from exc
