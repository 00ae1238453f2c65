"""Features of the past in a notebook: pandas, polars or Arrow in, Arrow out, no server needed but the registry.

preview and label work on events and definitions alone; get_historical, entities_at and entities_between read the lake
of a platform; stream_training_set feeds a training loop. The engine is the package `batch` of the same installation,
found by name: a model server that only reads online never loads it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, Final, Protocol, cast

import pyarrow as pa

from headrace.definitions import Entity, FeatureView, Source

ENGINE: Final = "batch.notebook.engine"
EVENT_TIME: Final = "event_time"
LAKE_DEFAULT: Final = ".headrace/batch"  # of a platform that runs in the same folder
REGISTRY_DEFAULT: Final = "127.0.0.1:6570"

Frame = Any  # pandas, polars or Arrow rows; the first two are optional
Selection = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A view that another one looks up, and its events; with what its own lookups read."""

    view: FeatureView
    events: Frame
    entity: Entity
    source: Source
    looked_up: "Sequence[LookedUp]" = ()


class ArrowStream(Protocol):
    """Passes over a training set; `state` after a batch goes on with the next one when it is restored."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of each batch."""

    @property
    def row_count(self) -> int:
        """Rows of this shard in one pass."""

    @property
    def state(self) -> Mapping[str, Any]:  # Any: JSON values
        """Where the stream stands."""

    def restore(self, state: Mapping[str, Any]) -> None:  # Any: as above
        """Goes on where an equal stream stood."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The rest of the pass under way; the next call goes through the next one."""


class _Engine(Protocol):
    preview_view: Callable[..., pa.Table]
    label_rows: Callable[..., pa.Table]
    historical: Callable[..., pa.Table]
    entity_rows: Callable[..., pa.Table]
    training_stream: Callable[..., ArrowStream]
    source_rows: Callable[..., AbstractContextManager[pa.RecordBatchReader]]


def preview(
    view: FeatureView,
    events: Frame,
    *,
    entity: Entity,
    source: Source,
    entities: Frame = None,
    time_column: str = EVENT_TIME,
    looked_up: Sequence[LookedUp] = (),
) -> pa.Table:
    """What a view that is not registered gives for events, with the kernel, TTL and defaults that would serve it.

    `events` have the columns of `source`. Each of the `entities`, rows with join keys and a time, gets the features as
    of its time; without entities every entity of the events, at the newest event time.
    `looked_up` has each view that the lookups of the view name; all that happened was known at its event time.
    """
    return _engine().preview_view(
        view, events, entity, source, entities=entities, time_column=time_column, looked_up=looked_up
    )


def label(
    entities: Frame,
    view: FeatureView,
    events: Frame,
    *,
    entity: Entity,
    source: Source,
    horizon: timedelta,
    time_column: str = EVENT_TIME,
    known_until: datetime | None = None,
    looked_up: Sequence[LookedUp] = (),
) -> pa.Table:
    """The entity rows with what happened next: each feature at T + horizon, of the events in (T, T + horizon] alone.

    A plain feature is the newest value there, MISSING where nothing happened. Windows and expressions see those events
    and no other, however long a window is; a shorter one sees the end of the horizon. UNAVAILABLE: T + horizon is after
    `known_until` (now by default), so train without that row. Join features at T and labels like these, and no feature
    has seen its label.
    """
    return _engine().label_rows(
        entities,
        view,
        events,
        entity=entity,
        source=source,
        horizon=horizon,
        time_column=time_column,
        known_until=known_until,
        looked_up=looked_up,
    )


def get_historical(
    entities: Frame,
    features: Selection,
    *,
    lake: str = LAKE_DEFAULT,
    registry: str = REGISTRY_DEFAULT,
    token: str | None = None,
    time_column: str = EVENT_TIME,
    as_of: datetime | None = None,
) -> pa.Table:
    """The entity rows with features as they were known at each row's time, and a status column each.

    `features` is a feature service, or a list of view@vN:feature, which then name the columns. `as_of` hides what was
    written later. For rows beyond memory use `headrace offline get-historical`.
    """
    return _engine().historical(entities, features, (lake, registry, token), time_column, as_of)


def source_rows(
    source: Source, *, folder: str = ".", lake: str = LAKE_DEFAULT
) -> AbstractContextManager[pa.RecordBatchReader]:
    """What a source of kind SQL selects, valid inside a with block, in the types of its columns.

    Files are looked for from `folder` on. It wants DuckDB, the extra `sql`.
    """
    return _engine().source_rows(source, folder, lake)


def entities_between(
    features: Selection,
    start: datetime,
    end: datetime,
    *,
    lake: str = LAKE_DEFAULT,
    registry: str = REGISTRY_DEFAULT,
    token: str | None = None,
    time_column: str = EVENT_TIME,
    as_of: datetime | None = None,
) -> pa.Table:
    """Entity rows for get_historical: every entity at each of its events in [start, end]."""
    return _engine().entity_rows(features, (lake, registry, token), time_column, first=start, last=end, as_of=as_of)


def entities_at(
    features: Selection,
    time: datetime,
    *,
    lake: str = LAKE_DEFAULT,
    registry: str = REGISTRY_DEFAULT,
    token: str | None = None,
    time_column: str = EVENT_TIME,
    as_of: datetime | None = None,
) -> pa.Table:
    """Entity rows for get_historical: every entity that had an event up to a time, at that time."""
    return _engine().entity_rows(features, (lake, registry, token), time_column, first=time, last=time, as_of=as_of)


def stream_training_set(
    name: str,
    *,
    lake: str = LAKE_DEFAULT,
    columns: Sequence[str] = (),
    batch_rows: int = 1_024,
    seed: int | None = None,
    shard: int = 0,
    shard_count: int = 1,
    window_groups: int = 4,
) -> ArrowStream:
    """Batches of a training set. With a seed each pass has an order of its own, the same in every run.

    `window_groups` row groups are in memory at once and shuffled together. headrace.torch_data makes it a PyTorch
    dataset.
    """
    plan = {
        "batch_rows": batch_rows,
        "seed": seed,
        "shard": shard,
        "shard_count": shard_count,
        "window_groups": window_groups,
    }
    return _engine().training_stream(name, lake, columns, plan)


def _engine() -> _Engine:
    return cast(_Engine, import_module(ENGINE))
