"""Plans, overlays, handles and threads of the request core: what it refuses to build and what it never mixes up."""

import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from core_ext import keys, rules
from core_ext.request_core import Misses, Overlay, Plan, RequestCore, Unresolved
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from protos.feature.v1.online_feature_service_pb2 import (
    EntityColumn,
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesResponse,
)
from tests.unit.core_ext.request_samples import BYTES, F32, I64, SINGLE, STRING, VARIABLE, pack_row, storage_key

READ_TIME_US = 1_700_000_000_000_000
HANDLE = bytes(range(32))
SCHEMA = Schema(9, [(I64, SINGLE, 0)])
GROUPS = [(0, 5, SCHEMA, 0, 0, rules.FALLBACK_NONE, None)]
KEY = storage_key(1, [(I64, 7)], 5)


def plan(handle: bytes = HANDLE, revision: int = 1, name: str = "n") -> Plan:
    return Plan(handle, revision, [("user", I64)], [(1, [0])], GROUPS, [(name, 0, 0, None)])


def row(value: int, event_time_us: int = READ_TIME_US) -> bytes:
    return pack_row(9, [(I64, SINGLE, 0)], [struct.pack("<q", value)], event_time_us)


def request(**selection: object) -> bytes:
    columns = [EntityColumn(join_key="user", int64_values=[7])]
    return GetOnlineFeaturesRequest(entity_columns=columns, **selection).SerializeToString()  # type: ignore[arg-type]


def filled(value: int) -> RowTable:
    table = RowTable(1 << 20)
    table.fill([KEY], [row(value)], table.ticket())
    return table


def read(found: object) -> GetOnlineFeaturesResponse:
    assert isinstance(found, bytes)
    return GetOnlineFeaturesResponse.FromString(found)


def test_services_and_handles_find_their_plans() -> None:
    core = RequestCore(filled(42), 8)
    other = bytes(reversed(HANDLE))
    core.publish([plan(), plan(other, 2, "m")], {"a.b.c": plan(), "a.b.c@v1": plan(revision=3)}, 5)
    assert read(core.serve(request(feature_service="a.b.c"), READ_TIME_US)).columns[0].name == "n"
    assert read(core.serve(request(feature_service="a.b.c@v1"), READ_TIME_US)).registry_revision == 3
    by_handle = read(core.serve(request(handle=other), READ_TIME_US))
    assert (by_handle.registry_revision, by_handle.columns[0].name) == (2, "")
    assert not by_handle.columns[0].HasField("value_type")
    assert by_handle.columns[0].values == struct.pack("<q", 42)


def test_a_new_publication_replaces_the_old_one_whole() -> None:
    core = RequestCore(filled(1), 8)
    core.publish([], {"a.b.c": plan()}, 1)
    core.publish([], {"d.e.f": plan()}, 2)
    assert isinstance(core.serve(request(feature_service="a.b.c"), READ_TIME_US), Unresolved)
    assert read(core.serve(request(feature_service="d.e.f"), READ_TIME_US)).row_count == 1


def test_a_service_named_like_a_handle_is_not_found_by_handle() -> None:
    name = "team.domain.a_service_of_32_byte"
    assert len(name) == 32
    core = RequestCore(filled(1), 8)
    core.publish([], {name: plan()}, 1)
    assert isinstance(core.serve(request(handle=name.encode()), READ_TIME_US), Unresolved)


def test_many_plans_are_all_found() -> None:
    core = RequestCore(filled(1), 8)
    services = {f"team.domain.service_{number}@v1": plan(revision=number) for number in range(1, 1000)}
    core.publish(list(services.values()), services, 1)
    for name, expected in services.items():
        assert read(core.serve(request(feature_service=name), READ_TIME_US)).registry_revision == expected.revision


def test_the_table_answers_before_the_overlay() -> None:
    overlay = Overlay()
    overlay.add([KEY], [row(2)])
    answer = read(RequestCore(filled(1), 8).serve(request(handle=HANDLE), READ_TIME_US, plan(), overlay))
    assert answer.columns[0].values == struct.pack("<q", 1)


def test_an_overlay_keeps_the_last_word_on_a_key() -> None:
    overlay = Overlay()
    overlay.add_unavailable([KEY], rules.CAUSE_DEADLINE)
    overlay.add([KEY], [row(2)])
    core = RequestCore(RowTable(1 << 18), 8)
    assert read(core.serve(request(handle=HANDLE), READ_TIME_US, plan(), overlay)).columns[0].statuses == b"\x01"


def test_an_overlay_of_many_rows_finds_each() -> None:
    keys = [storage_key(1, [(I64, number)], 5) for number in range(1000)]
    overlay = Overlay()
    overlay.add(keys, [row(number) for number in range(1000)])
    columns = [EntityColumn(join_key="user", int64_values=range(1000))]
    asked = GetOnlineFeaturesRequest(handle=HANDLE, entity_columns=columns).SerializeToString()
    answer = read(RequestCore(RowTable(1 << 18), 8).serve(asked, READ_TIME_US, plan(), overlay))
    assert answer.columns[0].values == struct.pack("<1000q", *range(1000))


def test_min_offsets_are_asked_for_before_the_answer() -> None:
    core = RequestCore(filled(1), 8)
    options = {"min_offsets": [{"shard": 3, "epoch": 4, "offset": 5}], "partial_policy": "PARTIAL_POLICY_FAIL"}
    first = core.serve(request(handle=HANDLE, options=options), READ_TIME_US, plan())
    assert isinstance(first, Misses)
    assert (first.storage_keys, first.wants_offsets, first.partial) == ([], [(3, 4, 5)], False)
    assert read(core.serve(request(handle=HANDLE, options=options), READ_TIME_US, plan(), Overlay())).row_count == 1


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 0), (0, 999), (0, 1000), (0, 1999), (2, 0)])
@pytest.mark.parametrize("age_us", [0, 1, 2, 2_000_000, 2_000_001])
def test_a_value_is_stale_when_it_is_older_than_the_caller_allows(seconds: int, nanos: int, age_us: int) -> None:
    overlay = Overlay()
    overlay.add([KEY], [row(1, READ_TIME_US - age_us)])
    asked = request(handle=HANDLE, options={"max_staleness_duration": {"seconds": seconds, "nanos": nanos}})
    answer = read(RequestCore(RowTable(1 << 18), 8).serve(asked, READ_TIME_US, plan(), overlay))
    is_stale = age_us * 1000 > seconds * 10**9 + nanos
    assert answer.columns[0].statuses[0] == rules.PRESENT | (rules.STALE if is_stale else 0)


def test_a_row_of_another_schema_is_quarantined() -> None:
    overlay = Overlay()
    overlay.add([KEY], [pack_row(8, [(I64, SINGLE, 0)], [bytes(8)], 0)])
    answer = read(RequestCore(RowTable(1 << 18), 8).serve(request(handle=HANDLE), READ_TIME_US, plan(), overlay))
    assert answer.columns[0].statuses[0] == rules.UNAVAILABLE | rules.CAUSE_QUARANTINED
    assert answer.columns[0].values == bytes(8)


BAD_PLANS: dict[str, tuple[Sequence[object], type[Exception]]] = {
    "short handle": ((b"x" * 31, 1, [("u", I64)], [(1, [0])], GROUPS, [("n", 0, 0, None)]), ValueError),
    "no column": ((HANDLE, 1, [("u", I64)], [(1, [0])], GROUPS, []), ValueError),
    "too many columns": ((HANDLE, 1, [("u", I64)], [(1, [0])], GROUPS, [("n", 0, 0, None)] * 2001), ValueError),
    "join key beyond": ((HANDLE, 1, [("u", I64)], [(1, [1])], GROUPS, [("n", 0, 0, None)]), ValueError),
    "join key below": ((HANDLE, 1, [("u", I64)], [(1, [-1])], GROUPS, [("n", 0, 0, None)]), ValueError),
    "no key": ((HANDLE, 1, [("u", I64)], [(1, [])], GROUPS, [("n", 0, 0, None)]), ValueError),
    "nine keys": ((HANDLE, 1, [("u", I64)], [(1, [0] * 9)], GROUPS, [("n", 0, 0, None)]), ValueError),
    "key of floats": ((HANDLE, 1, [("u", F32)], [(1, [0])], GROUPS, [("n", 0, 0, None)]), ValueError),
    "same key twice": ((HANDLE, 1, [("u", I64)] * 2, [(1, [0])], GROUPS, [("n", 0, 0, None)]), ValueError),
    "65 keys": (
        (HANDLE, 1, [(f"u{number}", I64) for number in range(65)], [(1, [0])], GROUPS, [("n", 0, 0, None)]),
        ValueError,
    ),
    "lookup beyond": (
        (HANDLE, 1, [("u", I64)], [(1, [0])], [(1, 5, SCHEMA, 0, 0, 1, None)], [("n", 0, 0, None)]),
        ValueError,
    ),
    "groups out of order": (
        (
            HANDLE,
            1,
            [("u", I64)],
            [(1, [0]), (2, [0])],
            [(1, 5, SCHEMA, 0, 0, 1, None), (0, 5, SCHEMA, 0, 0, 1, None)],
            [("n", 0, 0, None)],
        ),
        ValueError,
    ),
    "no schema": ((HANDLE, 1, [("u", I64)], [(1, [0])], [(0, 5, None, 0, 0, 1, None)], [("n", 0, 0, None)]), TypeError),
    "group beyond": ((HANDLE, 1, [("u", I64)], [(1, [0])], GROUPS, [("n", 1, 0, None)]), ValueError),
    "column beyond": ((HANDLE, 1, [("u", I64)], [(1, [0])], GROUPS, [("n", 0, 1, None)]), ValueError),
    "short default": ((HANDLE, 1, [("u", I64)], [(1, [0])], GROUPS, [("n", 0, 0, b"1234")]), ValueError),
}


@pytest.mark.parametrize("case", BAD_PLANS)
def test_a_plan_that_would_read_outside_itself_is_refused(case: str) -> None:
    arguments, error = BAD_PLANS[case]
    with pytest.raises(error):
        Plan(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("shard_count", [0, 3, 2048])
def test_a_shard_count_that_splits_no_slots_is_refused(shard_count: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        RequestCore(RowTable(1 << 18), shard_count)


def test_an_overlay_refuses_what_is_no_row_or_key() -> None:
    overlay = Overlay()
    with pytest.raises(ValueError, match="no row"):
        overlay.add([KEY], [b"short"])
    with pytest.raises(ValueError, match="no row"):
        overlay.add([KEY], [row(1) + bytes(4)])
    with pytest.raises(ValueError, match="storage key"):
        overlay.add([b"12345678"], [None])
    with pytest.raises(ValueError, match="one row per key"):
        overlay.add([KEY], [])
    with pytest.raises(ValueError, match="cause"):
        overlay.add_unavailable([KEY], 0)
    with pytest.raises(TypeError):
        overlay.add([None], [None])  # type: ignore[list-item]


def test_shards_of_misses_are_those_of_their_slots() -> None:
    asked_plan = Plan(
        HANDLE,
        1,
        [("s", STRING), ("b", BYTES)],
        [(1, [0, 1])],
        [(0, 5, Schema(9, [(STRING, VARIABLE, 0)]), 0, 0, 1, None)],
        [("n", 0, 0, None)],
    )
    columns = [
        EntityColumn(join_key="b", bytes_values=[bytes([number]) for number in range(100)]),
        EntityColumn(join_key="s", string_values=[str(number) for number in range(100)]),
    ]
    asked = GetOnlineFeaturesRequest(handle=HANDLE, entity_columns=columns).SerializeToString()
    for shard_count in (1, 8, 1024):
        found = RequestCore(RowTable(1 << 18), shard_count).serve(asked, READ_TIME_US, asked_plan)
        assert isinstance(found, Misses)
        for key, shard in zip(found.storage_keys, found.shards, strict=True):
            assert shard == keys.shard_of_slot(keys.slot_of_key(key[4:-4]), shard_count)


READERS_SCRIPT = """
import struct, sys, threading
from core_ext.request_core import Overlay, Plan, RequestCore
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from tests.unit.core_ext import request_samples as samples

THREADS = 400
schema = [(samples.F32, samples.SINGLE, 0)] * 50
plan = Plan(bytes(32), 1, [("u", samples.I64)], [(1, [0])], [(0, 5, Schema(9, schema), 0, 0, 1, None)],
            [("", 0, index, None) for index in range(50)])
table = RowTable(16 << 20)
numbers = range(1000)
keys = [samples.storage_key(1, [(samples.I64, number)], 5) for number in numbers]
rows = [samples.pack_row(9, schema, [struct.pack("<f", number)] * 50, 0) for number in numbers]
table.fill(keys, rows, table.ticket())
core = RequestCore(table, 8)
column = samples.KeyColumn("u", samples.I64, numbers)
wrong = samples.request_bytes(samples.Sample([samples.KeyColumn("u", samples.I64, [5000])], handle=bytes(32)))
request = samples.request_bytes(samples.Sample([column], handle=bytes(32)))
expected = core.serve(request, 1, plan)

together = threading.Barrier(THREADS)

def work():
    together.wait()
    for _ in range(10):
        assert core.serve(request, 1, plan) == expected  # 50,000 values: the GIL is given up
        assert core.serve(wrong, 1, plan).storage_keys

threads = [threading.Thread(target=work) for _ in range(THREADS)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
"""


def test_more_threads_than_places_of_readers_do_not_block_each_other(repository: Path) -> None:
    """A reader waits for its place with the GIL held, so that those inside must never need it to get out."""
    words = [sys.executable, "-c", READERS_SCRIPT]
    ended = subprocess.run(words, cwd=repository, timeout=60, capture_output=True, text=True, check=True)
    assert ended.stdout == "done\n"
