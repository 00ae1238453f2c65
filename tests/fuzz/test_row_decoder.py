"""Damaged rows under a right checksum: refused as by the twin, or read without leaving the row."""

from collections.abc import Iterator
from typing import Any

import pytest

from core_ext import keys, row_codec
from core_ext.request_core import Overlay, Plan, RequestCore
from core_ext.row_table import RowTable
from core_ext.twin import row_codec as twin
from core_ext.twin.hashing import with_checksum
from headrace.types import Scalar
from protos.feature.v1.online_feature_service_pb2 import EntityColumn, GetOnlineFeaturesRequest
from tests.fuzz.mutations import mutations
from tests.unit.core_ext.golden import described, row_path, types_of

CASES = described("rows")
CORPUS = [row_path(case).read_bytes() for case in CASES]
COUNTS = pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
ENTITY_ID, VIEW_ID, KEY = 1, 2, 3
READ_TIME_US = 2_000_000_000_000_000
PASSED_MIN = 0.02  # share of inputs that must pass the checks, else the fuzz no longer reaches what reads behind them


def damaged(seed: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Damaged rows, whose length field and checksum are mostly made right again."""
    for index, data in mutations(CORPUS, seed, count):
        body = bytearray(data[:-4].ljust(64, b"\0"))
        body += bytes(-len(body) % 4)
        if len(data) % 5:  # a fifth keep a wrong length field
            body[4:8] = (len(body) + 4).to_bytes(4, "little")
        if len(data) % 3:  # two thirds keep the schema, so that the checks of values are reached
            body[8:12] = CASES[index]["schema_id"].to_bytes(4, "little")
            body[:2] = CORPUS[index][:2]
        yield index, with_checksum(bytes(body))


def outcome(module: Any, schema: Any, row: bytes) -> str:
    try:
        header, values = module.decode_row(schema, row)
    except module.CorruptRowError as error:
        return f"corrupt: {error}"
    return repr((tuple(header), values))


@COUNTS
def test_core_and_twin_agree_on_damaged_rows(seed: int, count: int) -> None:
    schemas = [row_codec.Schema(case["schema_id"], types_of(case)) for case in CASES]
    twins = [twin.schema_of(case["schema_id"], types_of(case)) for case in CASES]
    passed = 0
    for index, row in damaged(seed, count):
        found = outcome(row_codec, schemas[index], row)
        assert found == outcome(twin, twins[index], row), row.hex()
        passed += not found.startswith("corrupt")
    assert passed > PASSED_MIN * count


def plan_of(case: dict[str, Any], schema: row_codec.Schema) -> Plan:
    """Plan that reads every column of a golden row."""
    columns = [(f"c{index}", 0, index, None) for index in range(schema.column_count)]
    lookups, groups = [(ENTITY_ID, [0])], [(0, VIEW_ID, schema, 0, 0, 1, None)]
    return Plan(bytes(28) + case["schema_id"].to_bytes(4), 1, [("k", Scalar.I64)], lookups, groups, columns)


@COUNTS
def test_rows_that_pass_the_checks_are_served(seed: int, count: int) -> None:
    core = RequestCore(RowTable(1 << 20), 8)
    cases = [(index, case) for index, case in enumerate(CASES) if case["types"]]
    schemas = {index: row_codec.Schema(case["schema_id"], types_of(case)) for index, case in cases}
    plans = {index: plan_of(case, schemas[index]) for index, case in cases}
    storage_key = keys.storage_key(ENTITY_ID, keys.encode_key([Scalar.I64], [KEY]), VIEW_ID)
    entity = EntityColumn(join_key="k", int64_values=[KEY])
    served = 0
    for index, row in damaged(seed, count):
        if index not in plans:
            continue
        try:
            row_codec.check_row(row, schemas[index])
        except row_codec.CorruptRowError:
            continue
        overlay = Overlay()
        overlay.add([storage_key], [row])
        request = GetOnlineFeaturesRequest(handle=plans[index].handle, entity_columns=[entity])
        answer = core.serve(request.SerializeToString(), READ_TIME_US, plans[index], overlay)
        assert isinstance(answer, bytes)
        served += 1
    assert served > PASSED_MIN * count
