"""The value rules as the table of tests/data/rules.json, through a whole server by gRPC."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest

from core_ext import rules
from feature_server.domain.shard_writes import Durability
from headrace.definitions import DefinitionSet, Entity, EntityKey, Fallback, Feature, FeatureView, latest
from headrace.errors import DataLoss
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from tests.unit.core_ext.test_rules import TABLE, combinations
from tests.unit.feature_server.parts import ENTITY, OWNER, PRINCIPAL, Parts, source_of, state_of

READ_TIME_US: Final = 1_760_000_000_000_000
VALUE: Final = 42
DEFAULT: Final = -7
SLOTS: Final = {"value": VALUE, "default": DEFAULT, "empty": 0}
TIMEOUT_S: Final = 10.0
LIMITS: Final = sorted({(case["ttl_us"], case["stale_us"]) for case in TABLE["value_cases"]})


def view_name(ttl_us: int, stale_us: int, fallback: str, default: bool) -> str:
    return f"shop.web.v_{ttl_us}_{stale_us}_{fallback}_{'d' if default else 'n'}"


def definitions() -> DefinitionSet:
    keys = [EntityKey("user_id", "i64")]
    source = source_of({"value": "i64"}, keys)
    views = [
        FeatureView(
            name=view_name(ttl_us, stale_us, fallback, default),
            owner=OWNER,
            entity=ENTITY,
            source=source.name,
            features=[Feature("value", "i64", latest("value"), default=DEFAULT if default else None)],
            ttl=timedelta(microseconds=ttl_us) if ttl_us else None,
            freshness_sla=timedelta(microseconds=stale_us) if stale_us else None,
            fallback=Fallback[fallback.upper()],
        )
        for (ttl_us, stale_us), fallback, default in itertools.product(
            LIMITS, ["none", "default", "expired_value"], [False, True]
        )
    ]
    entity = Entity(name=ENTITY, owner=OWNER, join_keys=keys)
    return DefinitionSet(sources=[source], entities=[entity], feature_views=views)


class Served:
    """A server over every view that the table needs; shard 1 is lost."""

    def __init__(self, folder: Path) -> None:
        self.parts = Parts(folder, state=state_of(definitions()))
        self.parts.clock.now_us = READ_TIME_US
        self.channel = self.parts.serve()
        self.stub = pb_grpc.OnlineFeatureServiceStub(self.channel)
        self.readable = iter(self.parts.keys_on(0, 2_000))
        self.lost = iter(self.parts.keys_on(1, 2_000))
        self.parts.shards[1].quarantine(DataLoss("damaged", reason="STORAGE_CORRUPT"))

    def store(self, kind: str, view: str, event_time_us: int) -> int:
        """Puts a row of a kind and returns its key."""
        key = next(self.lost if kind == "quarantined" else self.readable)
        if kind in {"value", "null"}:
            batch = pa.RecordBatch.from_pydict(
                {
                    "user_id": pa.array([key], pa.int64()),
                    "event_time": pa.array([event_time_us], pa.timestamp("us", "UTC")),
                    "value": pa.array([VALUE if kind == "value" else None], pa.int64()),
                }
            )
            self.parts.writes.write(f"{view}@v1", lambda target: [batch], Durability.LOG, ("", 0), PRINCIPAL)
        elif kind == "tombstone":
            columns = [pb.EntityColumn(join_key="user_id", int64_values=[key])]
            erased = self.stub.DeleteEntity(pb.DeleteEntityRequest(entity=ENTITY, entity_columns=columns))
            assert erased.entity_count == 1
        return key

    def read(self, view: str, key: int, include_expired: bool, is_late: bool) -> pb.FeatureColumn:
        message = pb.GetOnlineFeaturesRequest(
            features=[f"{view}@v1:value"],
            entity_columns=[pb.EntityColumn(join_key="user_id", int64_values=[key])],
            options=pb.ReadOptions(include_expired=include_expired),
        )
        if is_late:
            # A call whose deadline is over gets no answer by gRPC, so that this one case asks the domain.
            data = self.parts.reads.get(PRINCIPAL, message.SerializeToString(), lambda: 0.0)
            return pb.GetOnlineFeaturesResponse.FromString(data).columns[0]
        return self.stub.GetOnlineFeatures(message, timeout=TIMEOUT_S).columns[0]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    opened = Served(tmp_path_factory.mktemp("rules") / "store")
    yield opened
    opened.channel.close()
    opened.parts.close()


@pytest.mark.parametrize("case", TABLE["value_cases"], ids=lambda case: case["name"])
def test_value_follows_the_table_from_disk_and_from_the_table(served: Served, case: dict[str, Any]) -> None:
    status = 0
    for name in case["status"]:
        status |= getattr(rules, name)
    for fallback, default, include_expired in combinations(case):
        view = view_name(case["ttl_us"], case["stale_us"], fallback, default)
        key = served.store(case["row"], view, READ_TIME_US - case.get("age_us", 0))
        for _ in range(2):
            column = served.read(view, key, include_expired, case["row"] == "deadline")
            found = (column.statuses[0], int.from_bytes(column.values, "little", signed=True))
            assert found == (status, SLOTS[case["slot"]]), (fallback, default, include_expired)
