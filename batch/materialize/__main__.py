"""One view online: `python -m batch.materialize VIEW --data DIR --registry A --features B`; its last line is JSON."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Final

from batch.app import now_us, open_catalogue, package_version, registry_records, shared_options
from batch.drain.views import Views
from batch.jobs.views import computed_source
from batch.materialize.computed import ComputedMaterialization, Make
from batch.materialize.computed_rows import row_maker
from batch.materialize.materialize import Materialization
from batch.offline.runs import Provenance, Runs
from headrace.client.registry import RegistryClient
from headrace.client.shards import ShardClient
from headrace.definitions import DefinitionKind
from headrace.definitions.registered import Registered, RegisteredEntity, RegisteredSource, RegisteredView
from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace.serving.process import bearer_token

PROGRESS_INTERVAL_S: Final = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when all rows are online."""
    options = _options(arguments)
    try:
        since_us, until_us = _time_us(options.since, "since"), _time_us(options.until, "until")
        with ExitStack() as stack:
            token = bearer_token(options.token, "token")
            registry = stack.enter_context(RegistryClient(options.registry, token=token))
            shards = stack.enter_context(ShardClient(options.features, token=token))
            record: Registered = registry.get(DefinitionKind.FEATURE_VIEW, options.view)
            assert isinstance(record, RegisteredView), "the registry answers the kind that was asked for"
            views = Views(lambda: registry_records(registry))
            columns = views.view(record.view_id).columns
            catalogue = stack.enter_context(closing(open_catalogue(options)))
            runs = Runs(catalogue, Provenance(package_version()), now_us)
            began_s = time.monotonic()
            progress = _progress(str(columns.ref), began_s)
            if not record.definition.is_plain:
                _refuse_times(since_us, until_us)
                parts = _parts_of(registry, record)
                make = stack.enter_context(_spark_parts(options, (record, *parts))) if options.spark_master else None
                work = ComputedMaterialization(catalogue, shards, views, runs, make=make)
                done = work.run(row_maker(record, *parts), columns, progress)
            elif since_us is None and until_us is None:
                done = Materialization(catalogue, shards, runs).run(columns, progress)
            else:
                done = Materialization(catalogue, shards, runs).run_between(columns, since_us, until_us, progress)
    except HeadraceError as error:
        sys.stderr.write(f"error: {error.message} [{error.reason}]\n")
        return 1
    seconds = time.monotonic() - began_s
    document = {"feature_view": str(columns.ref), **asdict(done), "rows_per_second": round(done.row_count / seconds)}
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


def _parts_of(registry: RegistryClient, record: RegisteredView) -> tuple[RegisteredEntity, RegisteredSource]:
    entity = registry.get(DefinitionKind.ENTITY, record.definition.entity)
    source = registry.get(DefinitionKind.SOURCE, record.definition.source)
    assert isinstance(entity, RegisteredEntity) and isinstance(source, RegisteredSource), "as above"
    return entity, replace(source, definition=computed_source(registry, record, entity))


@contextmanager
def _spark_parts(
    options: argparse.Namespace, definitions: tuple[RegisteredView, RegisteredEntity, RegisteredSource]
) -> Iterator[Make]:
    """Rows that Spark makes; they are taken away once they are online."""
    try:
        from batch.spark.lake_jobs import session_of  # lazy: pyspark is an extra
        from batch.spark.stored_rows import SparkParts
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"Spark needs {error.name}, which is not installed: install headrace[spark]",
            reason="EXTRA_MISSING",
            metadata={"extra": "spark", "module": error.name or ""},
        ) from error
    rows = options.spark_rows or str(options.data.resolve() / "spark-rows")
    with session_of({"master": options.spark_master}, "materialize") as session:
        parts = SparkParts(session, definitions, rows)
        yield parts
        parts.remove()


def _refuse_times(since_us: int | None, until_us: int | None) -> None:
    if since_us is not None or until_us is not None:
        raise InvalidArgument(
            "windows are made of all events of an entity: leave --since and --until out for this view",
            reason="TIMES_NOT_TAKEN",
            field="since",
        )


def _progress(name: str, began_s: float) -> Callable[[int, int], None]:
    told_s = began_s

    def tell(done: int, total: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= PROGRESS_INTERVAL_S:
            told_s = now_s
            sys.stderr.write(f"{name}: {done:,} of {total:,} rows, {done / (now_s - began_s):,.0f} rows/s\n")

    return tell


def _time_us(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(f"--{field} {text!r} is no ISO 8601 time", reason="BAD_TIME", field=field) from error
    if time.tzinfo is None:
        raise InvalidArgument(
            f"--{field} {text!r} has no zone; write it like 2026-01-31T00:00:00+00:00", reason="NAIVE_TIME", field=field
        )
    return round(time.timestamp() * 1_000_000)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="batch.materialize", description=__doc__)
    parser.add_argument("view", help="feature view, team.domain.name or with @vN")
    parser.add_argument("--since", help="first event time, ISO 8601 with a zone; else all that is new")
    parser.add_argument("--until", help="event time before which rows are taken")
    parser.add_argument("--spark-master", help="make the rows of a computed view on Spark: local[n], spark://HOST:PORT")
    parser.add_argument("--spark-rows", help="folder or URI for them that every worker sees; else in the data folder")
    shared_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
