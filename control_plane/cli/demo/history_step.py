"""What was served becomes a training set, which is rebuilt, and compared with what was served at the same instants."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from control_plane.cli.demo.replay import Difference, Replay, Sample, Wanted, compare
from control_plane.cli.demo.screen import Screen
from control_plane.cli.session import Session
from control_plane.cli.worker import run_job
from headrace.client.shards import ShardClient
from headrace.errors import InternalError, Unavailable

NAME: Final = "flights_of_2013"
SERVICE: Final = "flights.delay.departure@v1"
DRAIN_LIMIT_S: Final = 120.0
STATE_MASK: Final = 0x0F
_POLL_S: Final = 0.1


class HistoryStep:
    """The steps after the replay that read the offline store."""

    def __init__(self, screen: Screen, session: Session, folder: Path) -> None:
        self._screen = screen
        self._session = session
        self._folder = folder

    def run(self, replay: Replay, *, is_wrong: bool) -> list[Difference]:
        """Differences of served and historical values; raises InternalError where the rebuilt set is another one.

        `is_wrong`, for a test, asks history for the last flight as of the first instant.
        """
        samples = replay.samples
        self._await_drained()
        entities = self._folder / "flights.parquet"
        pq.write_table(_entity_rows(replay, samples, is_wrong=is_wrong), entities)
        made = self._job("training_set_create", {"name": NAME, "service": SERVICE, "entities": [str(entities)]})
        self._screen.say(
            f"training set {NAME}: {made['row_count']:,} flights x {made['feature_count']} features from the offline "
            f"store, each as of the instant when it was served; digest {made['digest'][:16]}"
        )
        with ThreadPoolExecutor(1) as beside:
            rebuilding = beside.submit(
                self._job, "training_set_rebuild", {"name": NAME, "output": str(self._folder / "rebuilt.parquet")}
            )
            differences = _differences(pq.read_table(made["result"]), samples)
            digest = rebuilding.result()["digest"]
        if digest != made["digest"]:
            raise InternalError(f"the rebuilt training set has the digest {digest}", reason="REBUILD_DIFFERS")
        self._screen.say(f"rebuilt from its pinned snapshots: digest {digest[:16]}, equal")
        if not differences:
            count = made["row_count"] * made["feature_count"]
            self._screen.say(f"parity: {count:,} of {count:,} served values and states equal those from history")
        return differences

    def _job(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON values
        return run_job(self._session, command, arguments, needs_registry=command == "training_set_create")

    def _await_drained(self) -> None:
        deadline = time.monotonic() + DRAIN_LIMIT_S
        with ShardClient(self._session.endpoints().features) as shards:
            while True:
                logs = [shard.row_log for shard in shards.list()[1]]
                if all(log is not None and log.acknowledged == log.end for log in logs):
                    return
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"rows are not offline after {DRAIN_LIMIT_S:.0f} s; look into the log of the drain worker",
                        reason="NOT_DRAINED",
                    )
                time.sleep(_POLL_S)


def _entity_rows(replay: Replay, samples: Sequence[Sample], *, is_wrong: bool) -> pa.Table:
    """Join keys and instants of what was served."""
    keys = replay.keys(np.concatenate([sample.flights for sample in samples]))
    instants = np.concatenate([np.full(len(one.flights), one.batch.read_time_us, np.int64) for one in samples])
    if is_wrong:
        instants[-1] = instants[0]
    return pa.table(keys | {"event_time": pa.array(instants).cast(pa.timestamp("us", tz="UTC"))})


def _differences(history: pa.Table, samples: Sequence[Sample]) -> list[Difference]:
    names = samples[0].batch.columns
    (values,) = history.select(names).combine_chunks().to_batches()
    states = {name: history[f"{name}__status"].to_numpy() & STATE_MASK for name in names}
    wanted = Wanted(values, states)
    differences: list[Difference] = []
    first = 0
    for sample in samples:
        end = first + sample.batch.row_count
        differences += compare(sample.batch, sample.flights, wanted.rows(first, end))
        first = end
    assert first == len(history)
    return differences
