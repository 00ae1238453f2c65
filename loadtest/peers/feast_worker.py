"""The Feast side of a run: reads one JSON command a line and answers one JSON line; runs in Feast's own environment."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import redis
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float32
from feast.value_type import ValueType

from loadtest.rows import EVENT_TIME_US, FEATURES_PER_VIEW, Keys, values

VIEW_COUNT: Final = 4
PLAIN: Final = "user_200"
PRECOMPUTED: Final = "user_200_precomputed"
SETTINGS: Final = {"feature_store.yaml": False, "bulk.yaml": True}  # whether writes skip the read of the event time
WRITE_BATCH_ROWS: Final = 2_000  # rows per call; larger batches were not faster

Command = dict[str, object]
Answer = dict[str, object]


@dataclass(frozen=True, slots=True)
class Stores:
    """The store as it is by default, and as Feast's documentation advises for loads of new keys."""

    plain: FeatureStore
    bulk: FeatureStore


def feature_names(view: int) -> list[str]:
    """Names of a view's features; unique over all views, as Feast's short names need."""
    return [f"v{view}_f{index:02d}" for index in range(FEATURES_PER_VIEW)]


def configuration(redis_port: int, skip_dedup: bool) -> str:
    """The repository's YAML: Redis online, everything else local, the registry cached as for production."""
    return f"""project: loadtest
provider: local
registry:
  path: registry.db
  cache_ttl_seconds: 3600
online_store:
  type: redis
  connection_string: "127.0.0.1:{redis_port}"
  skip_dedup: {str(skip_dedup).lower()}
offline_store:
  type: file
entity_key_serialization_version: 3
telemetry: false
"""


def definitions(folder: Path) -> list[Entity | FeatureView | FeatureService]:
    """One entity, four views of 50 features, and the service with them, plain and precomputed."""
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    views = []
    for view in range(VIEW_COUNT):
        path = folder / f"view_{view}.parquet"
        frame(view, np.arange(1, dtype=np.int64), 0).to_parquet(path)
        views.append(
            FeatureView(
                name=f"view_{view}",
                entities=[user],
                ttl=timedelta(0),
                schema=[Field(name=name, dtype=Float32) for name in feature_names(view)],
                source=FileSource(path=str(path), timestamp_field="event_timestamp"),
            )
        )
    plain = FeatureService(name=PLAIN, features=list(views))
    return [user, *views, plain, FeatureService(name=PRECOMPUTED, features=list(views), precompute_online=True)]


def frame(view: int, keys: Keys, age_us: int) -> pd.DataFrame:
    """Rows of one view; a smaller age is a later event."""
    moment = datetime.fromtimestamp((EVENT_TIME_US - age_us) / 1e6, UTC)
    out = pd.DataFrame(values(view, keys), columns=feature_names(view))
    out.insert(0, "user_id", keys)
    out["event_timestamp"] = pd.Series([moment] * len(keys), dtype="datetime64[us, UTC]")
    return out


def write(store: FeatureStore, view: int, keys: Keys, age_us: int) -> float:
    """Writes the rows in batches and returns the seconds inside Feast."""
    spent = 0.0
    for start in range(0, len(keys), WRITE_BATCH_ROWS):
        batch = frame(view, keys[start : start + WRITE_BATCH_ROWS], age_us)
        began = time.perf_counter()
        store.write_to_online_store(f"view_{view}", df=batch)
        spent += time.perf_counter() - began
    return spent


def load(stores: Stores, command: Command) -> Answer:
    """Writes every row of the comparison and the precomputed vectors."""
    keys = np.arange(int(str(command["entities"])), dtype=np.int64)
    for view in range(VIEW_COUNT):
        write(stores.bulk, view, keys, 0)
    return {"vectors": stores.plain.precompute_feature_service(PRECOMPUTED)}


def write_rows(stores: Stores, command: Command) -> Answer:
    """Writes a range of keys of the first view: new ones, or known ones with a later event."""
    first, count = int(str(command["first_key"])), int(str(command["rows"]))
    keys = np.arange(first, first + count, dtype=np.int64)
    store = stores.bulk if command.get("bulk") else stores.plain
    return {"rows": count, "seconds": write(store, 0, keys, int(str(command["age_us"])))}


def read(stores: Stores, command: Command) -> Answer:
    """Reads batches through the SDK in this process and returns the time of each call and the first row."""
    batches = command["batches"]
    assert isinstance(batches, list)
    service = stores.plain.get_feature_service(PRECOMPUTED if command.get("precomputed") else PLAIN)
    spans, answer = [], {}
    for keys in batches:
        rows = [{"user_id": key} for key in keys]
        began = time.perf_counter()
        answer = stores.plain.get_online_features(service, rows, full_feature_names=True).to_dict()
        spans.append(time.perf_counter() - began)
    return {"seconds": spans, "first": answer["view_0__v0_f00"], "features": len(answer) - 1}


def frames(_: Stores, command: Command) -> Answer:
    """Reads batches of packed values by MGET into data frames, and returns the time of each and the first row."""
    batches, columns = command["batches"], int(str(command["columns"]))
    assert isinstance(batches, list)
    names = [f"c{at:02d}" for at in range(columns)]
    client = redis.Redis(port=int(str(command["port"])))
    spans, first = [], []
    for keys in batches:
        began = time.perf_counter()
        found = client.mget([f"n:{key:012d}" for key in keys])
        table = pd.DataFrame(np.frombuffer(b"".join(found), "<f4").reshape(-1, columns), columns=names)
        spans.append(time.perf_counter() - began)
        first = table.iloc[0].tolist()
    return {"seconds": spans, "first": first}


def open_stores(folder: Path, redis_port: int) -> Stores:
    """Both stores over one registry, with the definitions applied once."""
    for name, skip_dedup in SETTINGS.items():
        (folder / name).write_text(configuration(redis_port, skip_dedup))
    plain, bulk = (FeatureStore(str(folder), fs_yaml_file=folder / name) for name in SETTINGS)
    if not (folder / "registry.db").exists():
        plain.apply(definitions(folder))
    return Stores(plain, bulk)


def main() -> int:
    """Answers commands until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--redis-port", type=int, required=True)
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Feast prints; only answers may reach the pipe
    stores = open_stores(arguments.folder, arguments.redis_port)
    acts: dict[str, Callable[[Stores, Command], Answer]] = {"load": load, "write": write_rows, "read": read}
    acts["frames"] = frames
    acts["ping"] = lambda stores, command: {}
    for line in sys.stdin:
        command = json.loads(line)
        answers.write(json.dumps(acts[command["act"]](stores, command)) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
