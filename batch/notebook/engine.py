"""What `headrace.history` calls; its signatures are those of the protocol there."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from batch.historical.failures import refused
from batch.jobs.context import Context
from batch.jobs.historical import now_us
from batch.notebook import lake, preview
from batch.notebook.labels import with_labels
from batch.notebook.tables import to_arrow
from batch.offline.columns import ViewColumns
from batch.sql.select import selected
from batch.training.sets import TrainingSets
from batch.training.stream import StreamPlan, TrainingStream
from headrace.definitions import Entity, FeatureView, Source
from headrace.history import LookedUp
from headrace.names import VersionRef

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Frame = Any  # pandas, polars or Arrow rows; the first two are optional


def preview_view(
    view: FeatureView,
    events: Frame,
    entity: Entity,
    source: Source,
    *,
    entities: Frame,
    time_column: str,
    looked_up: Sequence[LookedUp],
) -> pa.Table:
    """As headrace.history.preview."""
    return preview.preview(
        view, events, entity, source, entities=entities, time_column=time_column, looked_up=looked_up
    )


def label_rows(
    entities: Frame,
    view: FeatureView,
    events: Frame,
    *,
    entity: Entity,
    source: Source,
    horizon: timedelta,
    time_column: str,
    known_until: datetime | None,
    looked_up: Sequence[LookedUp],
) -> pa.Table:
    """As headrace.history.label."""
    history = preview.history_of(LookedUp(view, events, entity, source, looked_up))
    known_us = now_us() if known_until is None else _us(known_until, "known_until")
    spine = to_arrow(entities, "entities")
    return with_labels(spine, history, horizon, time_column=time_column, known_us=known_us)


def historical(
    entities: Frame,
    features: lake.Selection,
    place: tuple[str, str, str | None],
    time_column: str,
    as_of: datetime | None,
) -> pa.Table:
    """As headrace.history.get_historical."""
    cutoff_us = 0 if as_of is None else _us(as_of, "as_of")
    return lake.get_historical(lake.Place(*place), entities, features, time_column, cutoff_us)


def entity_rows(
    features: lake.Selection,
    place: tuple[str, str, str | None],
    time_column: str,
    *,
    first: datetime,
    last: datetime,
    as_of: datetime | None,
) -> pa.Table:
    """As headrace.history.entities_between and entities_at."""
    cutoff_us = 0 if as_of is None else _us(as_of, "as_of")
    first_us, last_us = _us(first, "start"), _us(last, "end")
    return lake.get_entities(lake.Place(*place), features, time_column, (first_us, last_us), cutoff_us)


def source_rows(source: Source, folder: str, place: str) -> AbstractContextManager[pa.RecordBatchReader]:
    """As headrace.history.source_rows."""
    return selected(source, Path(folder), lambda ref: _lake_rows(Path(place), ref))


def _lake_rows(folder: Path, ref: VersionRef) -> pa.Table:
    with Context(folder).catalogue() as catalogue:
        return catalogue.load(ViewColumns(ref, (), ()).identifier).scan().to_arrow()


def training_stream(name: str, folder: str, columns: Sequence[str], plan: dict[str, Any]) -> TrainingStream:
    """As headrace.history.stream_training_set."""
    with Context(Path(folder)).catalogue() as catalogue:
        manifest = TrainingSets(catalogue).get(name)
    return TrainingStream([manifest.result], columns, StreamPlan(**plan))


def _us(time: datetime, field: str) -> int:
    if time.tzinfo is None:
        raise refused("NAIVE_TIME", field, f"{time} has no time zone; give datetime(..., tzinfo=UTC)")
    return (time - _EPOCH) // timedelta(microseconds=1)
