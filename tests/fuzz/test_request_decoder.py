"""Damaged requests: each is answered, needs something first, or is refused with a reason."""

import json
from collections import Counter

import pytest
from google.protobuf import json_format

from core_ext.request_core import Misses, Overlay, Plan, Refused, RequestCore, Unresolved
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from headrace.types import Scalar, Shape
from protos.feature.v1.online_feature_service_pb2 import GetOnlineFeaturesRequest
from tests.fuzz.mutations import mutations
from tests.unit.core_ext.golden import FOLDER

NAMES = sorted(path.stem for path in (FOLDER / "requests").iterdir())
CORPUS = [(FOLDER / "requests" / f"{name}.bin").read_bytes() for name in NAMES]
READ_TIME_US = 2_000_000_000_000_000
READ_SHARE_MIN = 0.05  # of inputs that must be read to their end, else the fuzz stops at the door
SCHEMA = Schema(9, [(Scalar.F32, Shape.SINGLE, 0), (Scalar.STRING, Shape.SINGLE, 0)])
PLAN = Plan(
    bytes(range(32)),
    1,
    [("user", Scalar.I64), ("city", Scalar.STRING), ("tag", Scalar.BYTES)],
    [(1, [0]), (2, [1, 2])],
    [(0, 5, SCHEMA, 0, 0, 1, None), (1, 6, SCHEMA, 1000, 10, 2, None)],
    [("a", 0, 0, None), ("b", 0, 1, b"default"), ("c", 1, 0, bytes(4))],
)


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_damaged_requests_get_an_answer_or_a_reason(seed: int, count: int) -> None:
    core = RequestCore(RowTable(1 << 20), 8)
    core.publish([PLAN], {"service": PLAN}, 1)
    results = Counter(type(result_of(core, request)) for _, request in mutations(CORPUS, seed, count))
    assert set(results) <= {bytes, Unresolved, Refused}
    assert results[bytes] > READ_SHARE_MIN * count


def result_of(core: RequestCore, request: bytes) -> bytes | Misses | Unresolved | Refused:
    """The answer of a store without rows, or why there is none."""
    try:
        answer = core.serve(request, READ_TIME_US)
        if not isinstance(answer, Misses):
            return answer
        overlay = Overlay()
        overlay.add(answer.storage_keys, [None] * len(answer.storage_keys))
        return core.serve(request, READ_TIME_US, None, overlay)
    except Refused as refusal:
        return refusal


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_request_reads_as_described(name: str) -> None:
    described = json.loads((FOLDER / "requests.json").read_text(encoding="ascii"))
    assert sorted(described) == NAMES
    expected = json_format.ParseDict(described[name], GetOnlineFeaturesRequest())
    assert GetOnlineFeaturesRequest.FromString((FOLDER / "requests" / f"{name}.bin").read_bytes()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_request_is_served(name: str) -> None:
    core = RequestCore(RowTable(1 << 20), 8)
    core.publish([PLAN], {"service": PLAN}, 1)
    answer = core.serve(CORPUS[NAMES.index(name)], READ_TIME_US)
    assert isinstance(answer, Unresolved if name == "by_features" else Misses)
