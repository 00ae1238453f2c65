"""Golden bytes: what was once stored is written the same way, and read, for ever."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from core_ext import keys, row_codec, states
from core_ext.arrow import arrow_column
from core_ext.twin import keys as twin_keys
from core_ext.twin import row_codec as twin
from core_ext.twin import states as twin_states
from tests.unit.core_ext.golden import (
    ENTITY_ID,
    FOLDER,
    HEADER_FIELDS,
    VIEW_ID,
    described,
    events_of_case,
    header_of,
    key_by_twin,
    plain,
    row_by_twin,
    row_path,
    spec_of_case,
    types_of,
)
from tests.unit.core_ext.rows import array_of
from tests.unit.core_ext.state_samples import state_of

ROWS = pytest.mark.parametrize("case", described("rows"), ids=lambda case: case["name"])
KEYS = pytest.mark.parametrize("case", described("keys"), ids=lambda case: case["name"])
STATES = pytest.mark.parametrize("case", described("states"), ids=lambda case: case["name"])


def row_by_core(case: dict[str, Any]) -> bytes:
    header = header_of(case)
    if case["tombstone"]:
        times = (header.event_time_us, header.write_time_us)
        return row_codec.encode_tombstone(header.schema_id, *times, header.source_id, header.partition, header.offset)
    values = plain(case["values"])
    types = types_of(case)
    columns = [arrow_column(array_of(column, [value])) for column, value in zip(types, values, strict=True)]
    batch = row_codec.encode_rows(row_codec.Schema(case["schema_id"], types), columns, np.array([header.event_time_us]))
    available = np.array([header.available_time_us])
    return batch.stamp(
        np.arange(1), header.write_time_us, available, header.source_id, header.partition, header.offset
    )[0]


@ROWS
def test_a_golden_row_is_written_again(case: dict[str, Any]) -> None:
    stored = row_path(case).read_bytes()
    assert row_by_core(case) == stored
    assert row_by_twin(case) == stored


@ROWS
@pytest.mark.parametrize("module", [row_codec, twin], ids=["core", "twin"])
def test_a_golden_row_is_read(module: ModuleType, case: dict[str, Any]) -> None:
    make_schema = twin.schema_of if module is twin else row_codec.Schema
    header, values = module.decode_row(make_schema(case["schema_id"], types_of(case)), row_path(case).read_bytes())
    assert repr(values) == repr(plain(case["values"]))
    assert {name: getattr(header, name) for name in HEADER_FIELDS} == {name: case[name] for name in HEADER_FIELDS}
    assert header.schema_id == case["schema_id"]
    assert bool(header.flags & 1) == case["tombstone"]


def test_every_golden_row_is_described() -> None:
    assert {path.stem for path in (FOLDER / "rows").iterdir()} == {case["name"] for case in described("rows")}


@KEYS
def test_a_golden_key_is_written_and_read(case: dict[str, Any]) -> None:
    scalars = [scalar for scalar, _, _ in types_of(case)]
    values = plain(case["values"])
    key = bytes.fromhex(case["key"])
    assert keys.encode_key(scalars, values) == key
    assert keys.decode_key(key) == twin_keys.decode_key(key) == tuple(values)
    assert keys.storage_key(ENTITY_ID, key, VIEW_ID).hex() == case["storage_key"]
    assert keys.slot_of_key(key) == case["slot"]
    assert keys.shard_of_slot(case["slot"], 8) == case["shard_of_8"]
    assert keys.shard_of_slot(case["slot"], 64) == case["shard_of_64"]
    assert key_by_twin(case) == {name: case[name] for name in key_by_twin(case)}


@STATES
def test_a_golden_state_is_written_and_read(case: dict[str, Any]) -> None:
    spec, events = spec_of_case(case), events_of_case(case)
    stored = bytes.fromhex(case["bytes"])
    assert state_of(spec, events).encode() == stored
    assert twin_states.encode(spec, events) == stored
    states.check(states.StateSpec(*spec), stored)
    decoded = state_of(spec)
    decoded.merge_bytes(stored)
    assert decoded.encode() == stored
