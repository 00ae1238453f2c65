"""A lake with two views of a shop, a registry that answers from memory, and entity rows for them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch.jobs.services import WantedService, resolve_service
from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.lake import lake_config
from batch.offline.positions import LogRange
from headrace.definitions import (
    Column,
    DefinitionKind,
    Entity,
    EntityKey,
    Fallback,
    Feature,
    FeatureService,
    FeatureView,
    RegisteredEntity,
    RegisteredSource,
    RegisteredView,
    ServiceEntry,
    Source,
    latest,
)
from headrace.definitions.registered import Registered, RegisteredService, Stamp, State
from headrace.definitions.transform import view_digest
from headrace.errors import NotFound
from headrace.names import VersionRef, parse_version_ref
from headrace.types import Scalar, parse_type

HOUR_US: Final = 3_600_000_000
START_US: Final = 1_760_000_000_000_000
STAMP: Final = Stamp(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), "e")
USER: Final = Entity("shop.users.user", owner="shop", join_keys=[EntityKey("user_id", "i64")])
EVENTS: Final = Source(
    "shop.users.visits",
    owner="shop",
    columns=[
        Column("event_time", "timestamp_us"),
        Column("user_id", "i64"),
        Column("basket", "f64"),
        Column("country", "string"),
    ],
)
ACTIVITY: Final = FeatureView(
    "shop.users.activity",
    owner="shop",
    entity=USER.name,
    source=EVENTS.name,
    features=[
        Feature("basket", "f64", latest("basket"), default=0.5),
        Feature("country", "string", latest("country")),
    ],
    ttl=timedelta(hours=10),
    fallback=Fallback.DEFAULT,
)
PLAIN: Final = FeatureView(
    "shop.users.friends",
    owner="shop",
    entity=USER.name,
    source=EVENTS.name,
    features=[Feature("country", "string", latest("country"))],
)
SERVICE: Final = FeatureService(
    "shop.ranking.homepage",
    owner="shop",
    entries=[
        ServiceEntry("shop.users.activity@v1", ["basket", "country"]),
        ServiceEntry("shop.users.activity@v1", ["basket"], {"user_id": "friend_id"}, "friend_"),
    ],
)
DIGEST: Final = view_digest(ACTIVITY, USER, EVENTS)
TABLE: Final = ViewColumns(
    VersionRef(ACTIVITY.name, 1),
    [("user_id", Scalar.I64)],
    [("basket", parse_type("f64")), ("country", parse_type("string"))],
)


class Registry:
    """Definitions of the shop; a client of a registry in form."""

    def __init__(self, service: FeatureService = SERVICE, *more: Registered) -> None:
        self._records: list[Registered] = [
            RegisteredEntity(USER, STAMP, 1),
            RegisteredSource(EVENTS, STAMP, 2),
            RegisteredView(ACTIVITY, STAMP, 1, State.ACTIVE, 3, 4, DIGEST),
            RegisteredView(PLAIN, STAMP, 1, State.ACTIVE, 5, 6, view_digest(PLAIN, USER, EVENTS)),
            RegisteredService(service, STAMP, 1, State.ACTIVE),
            *more,
        ]

    def get(self, kind: DefinitionKind, name: str) -> Registered:
        """One definition."""
        ref = parse_version_ref(name)
        for record in self._records:
            if record.ref.name == ref.name and ref.version in (0, record.ref.version):
                return record
        raise NotFound(f"no {kind.name} {name}", reason="UNKNOWN_NAME")


def wanted(service: FeatureService = SERVICE) -> WantedService:
    """The service, resolved."""
    return resolve_service(Registry(service), service.name)


def history(rows: Sequence[tuple[int, int, float | None, str | None]], first_offset: int = 0, **more: Any) -> pa.Table:
    """Rows (user, hour, basket, country), an hour apart, each written when it happened unless `write_us` says else."""
    times = [START_US + hour * HOUR_US for _, hour, _, _ in rows]
    columns = {
        "user_id": [row[0] for row in rows],
        "basket": [row[2] for row in rows],
        "country": [row[3] for row in rows],
        "_event_time": times,
        "_write_time": more.get("write_us", times),
        "_available_time": more.get("write_us", times),
        "_source_id": [0] * len(rows),
        "_log_partition": [0] * len(rows),
        "_offset": list(range(first_offset, first_offset + len(rows))),
        "_tombstone": [False] * len(rows),
    }
    return pa.table(columns, TABLE.arrow)


ROWS: Final = [(1, 0, 10.0, "DE"), (2, 0, None, "FR"), (1, 2, 12.0, "DE"), (3, 3, 7.0, None)]


def made_lake(folder: Path) -> Catalogue:
    """A lake that holds ROWS."""
    folder.mkdir(parents=True, exist_ok=True)
    catalogue = Catalogue(lake_config(folder))
    append(catalogue, history(ROWS), 0)
    return catalogue


def append(catalogue: Catalogue, rows: pa.Table, first: int) -> None:
    """Adds rows as the range of a log."""
    catalogue.view_table(TABLE).append(rows, [LogRange("log", 0, 1, first, first + rows.num_rows)])


def entities(path: Path, rows: Sequence[tuple[int, int, float]] = ((1, 1, 0), (2, 1, 0), (1, 3, 0), (9, 3, 0))) -> str:
    """Entity rows (user, friend is user + 1, hour) in a file."""
    times = pa.array([START_US + int(hour * HOUR_US) for _, hour, _ in rows], pa.timestamp("us", "UTC"))
    table = pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.int64()),
            "friend_id": pa.array([row[0] + 1 for row in rows], pa.int64()),
            "event_time": times,
            "label": list(range(len(rows))),
        }
    )
    pq.write_table(table, path)
    return str(path)
