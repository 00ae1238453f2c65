"""Served values of windows, filters and expressions are derived again by a skew run, and every cause is told apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from batch.drain.served import ServedDrain
from batch.jobs.context import Context
from batch.jobs.skew import derive_served
from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from batch.skew.served_log import IDENTIFIER, ServedFilter, ServedLog, rows_of
from headrace.client.shards import ShardClient
from headrace.definitions import DefinitionKind
from headrace.definitions.registered import Registered, all_records
from tests.integration.test_computed_parity import (
    ONLY_LATE,
    RETURNING,
    USERS,
    WINDOWED,
    InMemory,
    definitions,
    lived,
)
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.feature_server.parts import Parts, state_of

ROUNDS = 6
ALL = ServedFilter()
SAMPLED = 40
ERASED = {ONLY_LATE, RETURNING, 5, 6}


@dataclass
class Listed(InMemory):
    """A registry that lists as well."""

    def list(self, kind: DefinitionKind, name_prefix: str = "") -> Sequence[Registered]:
        return [one for one in all_records(self.state) if one.ref.name == name_prefix]


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def served(tmp_path: Path, catalogue: Catalogue, seed: int) -> Iterator[int]:
    """Some days of a shop whose every read was logged; how many values lie in the table."""
    parts = Parts(tmp_path / "store", state=state_of(definitions()), row_log_bytes=64 << 20, served_share=1.0)
    answers = lived(parts, catalogue, seed, ROUNDS)
    parts.served_writer.write_waiting()
    assert not any(parts.served_writer.dropped().values())
    with ShardClient(f"127.0.0.1:{parts.port}") as shards:
        drain = ServedDrain(shards, catalogue, Runs(catalogue, Provenance("test"), parts.clock), parts.clock)
        count = 0
        while (until := drain.waiting()) is not None:
            count += drain.cycle(until).row_count
    assert count == len(answers.values) * len(answers.users) == len(answers.values) * 2 * ROUNDS * (USERS + 1)
    yield count
    parts.close()


def skew(catalogue: Catalogue, tmp_path: Path, wanted: ServedFilter = ALL) -> dict[str, Any]:
    return derive_served(Context(tmp_path / "lake"), catalogue, Listed(state_of(definitions())), wanted)[0]


@pytest.mark.timeout(300)
def test_values_are_derived_again_and_only_late_events_make_others(
    served: int, catalogue: Catalogue, tmp_path: Path
) -> None:
    report = skew(catalogue, tmp_path)
    assert (report["rows"], report["skipped"]) == (served, {})
    others = [example for one in report["features"] for example in one["examples"] if example["cause"] != "late_event"]
    # An erasure is later than the newest row by a microsecond, which a read of that very time already sees.
    assert {(example["cause"], example["why"]) for example in others} <= {("boundary", "equal with edge past_time")}
    assert {int(example["entity_key"][-2:], 16) for example in others} <= ERASED
    assert report["causes"]["late_event"] > 0


@pytest.mark.timeout(300)
def test_changed_values_are_code_and_unseen_rows_missing(served: int, catalogue: Catalogue, tmp_path: Path) -> None:
    name = f"{WINDOWED}@v1:w0_3d"  # a count
    [*answers] = [one for batch in ServedLog(catalogue).batches(ServedFilter(features=(name,))) for one in batch]
    right = [one for one in answers if int.from_bytes(one.answer.value, "little") > 1]
    late = {one.entity_key for one in right} & {
        bytes.fromhex(example["entity_key"])
        for feature in skew(catalogue, tmp_path, ServedFilter(features=(name,)))["features"]
        for example in feature["examples"]
    }
    newest = max(one.time_us for one in right)
    chosen = [one for one in right if one.time_us == newest and one.entity_key not in late][:SAMPLED]
    assert chosen
    catalogue.load(IDENTIFIER).overwrite(rows_of([]).slice(0, 0))
    none, more = (0).to_bytes(8, "little"), (10**6).to_bytes(8, "little")
    planted = [replace(one, answer=replace(one.answer, value=value)) for one in chosen for value in (none, more)]
    ServedLog(catalogue).append(rows_of(planted))
    assert skew(catalogue, tmp_path)["causes"] == {"missing": len(chosen), "code": len(chosen)}
