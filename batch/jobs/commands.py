"""The commands that a worker knows, by name: JSON in, JSON out."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from batch.jobs import lineage, training
from batch.jobs.cleaning import sweep_lake
from batch.jobs.context import Arguments, Context, request_of, run_id_of
from batch.jobs.explained import explain
from batch.jobs.historical import run_historical
from headrace.errors import FailedPrecondition

Document = dict[str, Any]  # Any: JSON values
Command = Callable[[Context, Arguments], Document]


def get_historical(context: Context, arguments: Arguments) -> Document:
    """Features of a service for entity rows, at each row's time."""
    service = context.service(arguments["service"])
    with context.catalogue() as catalogue:
        request = request_of(context, arguments, arguments["output"])
        result = run_historical(catalogue, service, request, progress=context.progress, run_id=run_id_of(arguments))
    return result.document()


def skew_run(context: Context, arguments: Arguments) -> Document:
    """Parity of served values with history."""
    try:
        from batch.jobs.skew import run_skew  # lazy: scipy is an extra, and no other command needs it
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"skew runs need {error.name}, which is not installed: install headrace[skew]",
            reason="EXTRA_MISSING",
            metadata={"extra": "skew", "module": error.name or ""},
        ) from error
    return run_skew(context, arguments)


def get_historical_spark(context: Context, arguments: Arguments) -> Document:
    """The same on Spark."""
    found: Document = _spark().get_historical(context, arguments)
    return found


def window_history_spark(context: Context, arguments: Arguments) -> Document:
    """Features of a view for every entity at given times, on Spark."""
    found: Document = _spark().window_history(context, arguments)
    return found


def _spark() -> ModuleType:
    try:
        from batch.spark import lake_jobs  # lazy: pyspark is an extra
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"Spark needs {error.name}, which is not installed: install headrace[spark]",
            reason="EXTRA_MISSING",
            metadata={"extra": "spark", "module": error.name or ""},
        ) from error
    return lake_jobs


COMMANDS: Final[Mapping[str, Command]] = {
    "skew_run": skew_run,
    "sweep": sweep_lake,
    "explain": explain,
    "lineage_check": lineage.check,
    "lineage_runs": lineage.runs,
    "get_historical": get_historical,
    "get_historical_spark": get_historical_spark,
    "window_history_spark": window_history_spark,
    "training_set_create": training.create,
    "training_set_list": training.list_sets,
    "training_set_show": training.show,
    "training_set_verify": training.verify_set,
    "training_set_rebuild": training.rebuild,
    "training_set_diff": training.diff,
}
