"""Both clients against a server on a socket: same calls, same answers, same refusals."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest

from headrace.client import AsyncClient, Client, Durability, ReadOptions, RetryPolicy, WriteToken
from headrace.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    HeadraceError,
    InternalError,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.headrace.client.online_service import HANDLE, Served

KEYS = {"user_id": np.array([1, 2, 3])}
ZONED = pa.timestamp("us", tz="UTC")
TABLE = pa.table({"user_id": pa.array(range(30_000)), "event_time": pa.array([0] * 30_000, ZONED)})

# Runs one method of a client to its end: (method, positional arguments, keyword arguments, client arguments).
Runner = Callable[..., Any]


Step = tuple[str, tuple[Any, ...], dict[str, Any]]


def run_sync(target: str, method: str, *args: Any, client: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
    return steps_sync(target, [(method, args, kwargs)], client)[0]


def run_async(target: str, method: str, *args: Any, client: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
    return steps_async(target, [(method, args, kwargs)], client)[0]


def run_all(run: Runner, target: str, steps: Sequence[Step]) -> list[Any]:
    """Several calls of one client, in the style of a runner."""
    return steps_sync(target, steps) if run is run_sync else steps_async(target, steps)


def steps_sync(target: str, steps: Sequence[Step], client: Mapping[str, Any] | None = None) -> list[Any]:
    with Client(target, **(client or {})) as opened:
        return [getattr(opened, method)(*args, **kwargs) for method, args, kwargs in steps]


def steps_async(target: str, steps: Sequence[Step], client: Mapping[str, Any] | None = None) -> list[Any]:
    async def call() -> list[Any]:
        async with AsyncClient(target, **(client or {})) as opened:
            return [await getattr(opened, method)(*args, **kwargs) for method, args, kwargs in steps]

    return asyncio.run(call())


@pytest.fixture(params=[run_sync, run_async], ids=["sync", "asyncio"])
def run(request: pytest.FixtureRequest) -> Runner:
    runner: Runner = request.param
    return runner


def test_read_by_service_name(run: Runner, served: Served) -> None:
    batch = run(served.target, "get_online_features", "shop.users.ranking@v1", entities=KEYS)
    assert batch.columns == ("score",)
    assert batch.numpy("score").tolist() == [10.0, 20.0, 30.0]
    assert served.service.requests[0].feature_service == "shop.users.ranking@v1"
    assert list(served.service.requests[0].entity_columns[0].int64_values) == [1, 2, 3]


def test_read_by_list_of_features_with_options(run: Runner, served: Served) -> None:
    options = ReadOptions(
        include_event_times=True, include_expired=True, fail_when_partial=True, min_offsets=[WriteToken(3, 1, 7)]
    )
    run(served.target, "get_online_features", features=["a.b.c@v1:x"], entities=KEYS, options=options)
    request = served.service.requests[0]
    assert list(request.features) == ["a.b.c@v1:x"]
    assert request.options.include_event_times and request.options.include_expired
    assert request.options.partial_policy == pb.PARTIAL_POLICY_FAIL
    assert list(request.options.min_offsets) == [pb.WriteToken(shard=3, epoch=1, offset=7)]


def test_read_by_prepared_handle(run: Runner, served: Served) -> None:
    prepared = run(served.target, "prepare", "shop.users.ranking")
    assert [column.name for column in prepared.columns] == ["score"]
    assert prepared.feature_service == "shop.users.ranking@v1"
    batch = run(served.target, "get_online_features", prepared, entities={"user_id": [4]})
    assert served.service.requests[1].handle == HANDLE
    assert batch.numpy("score").tolist() == [40.0]


@pytest.mark.parametrize("selection", [{"service": "shop.users.ranking"}, {"features": ["shop.users.stats:score"]}])
def test_handle_that_the_server_forgot_is_prepared_anew_once(
    run: Runner, served: Served, selection: dict[str, Any]
) -> None:
    prepared = run(served.target, "prepare", **selection)
    served.service.handle = b"\x08" * 32
    reads = [("get_online_features", (prepared,), {"entities": KEYS})] * 2
    for batch in run_all(run, served.target, reads):
        assert batch.columns == ("score",)
        assert batch.numpy("score").tolist() == [10.0, 20.0, 30.0]
    sent = served.service.requests[1:]
    assert [type(request).__name__[:3] for request in sent] == ["Get", "Pre", "Get", "Get"]
    pinned = sent[1].feature_service or sent[1].features[0]
    assert pinned in ("shop.users.ranking@v1", "shop.users.stats@v1:score")


def test_forgotten_handle_whose_columns_changed_is_refused(run: Runner, served: Served) -> None:
    prepared = run(served.target, "prepare", "shop.users.ranking")
    served.service.handle, served.service.prepared_feature = b"\x08" * 32, "shop.users.stats@v2:score"
    with pytest.raises(FailedPrecondition, match="other columns") as caught:
        run(served.target, "get_online_features", prepared, entities=KEYS)
    assert caught.value.reason == "SELECTION_CHANGED"


def test_write_streams_batches_and_sums_their_answers(run: Runner, served: Served) -> None:
    result = run(served.target, "write_features", "a.b.c@v1", TABLE, durability=Durability.FSYNC)
    assert (result.row_count, result.stale_count) == (30_000, 3)
    assert {(token.shard, token.offset) for token in result.tokens} == {(1, 3), (0, 2)}
    assert pa.concat_tables(served.service.rows).equals(TABLE)
    assert served.service.requests[1].durability == pb.DURABILITY_FSYNC


def test_broken_write_stream_goes_on_with_the_unacknowledged_batches(run: Runner, served: Served) -> None:
    once = [Unavailable("restarting", reason="DRAINING")]
    served.service.before_batch = lambda number: once.pop() if number == 1 and once else None
    result = run(served.target, "write_features", "a.b.c@v1", TABLE)
    assert result.row_count == 30_000
    assert pa.concat_tables(served.service.rows).equals(TABLE)


def test_delete_entity(run: Runner, served: Served) -> None:
    result = run(served.target, "delete_entity", "shop.users.user", KEYS)
    assert result.entity_count == 3
    assert (result.tokens[0].shard, result.tokens[0].offset) == (4, 9)
    request = served.service.requests[0]
    assert request.entity == "shop.users.user" and request.request_id
    assert list(request.entity_columns[0].int64_values) == [1, 2, 3]


def test_errors_arrive_as_ours_with_reason_and_field(run: Runner, served: Served) -> None:
    served.service.failures.append(InvalidArgument("no such feature", reason="UNKNOWN_FEATURE", field="features[0]"))
    with pytest.raises(InvalidArgument, match="no such feature") as caught:
        run(served.target, "get_online_features", features=["a.b.c@v1:x"], entities=KEYS)
    assert (caught.value.reason, caught.value.field) == ("UNKNOWN_FEATURE", "features[0]")
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert len(served.service.requests) == 1


@pytest.mark.parametrize(
    "error", [NotFound("gone", reason="GONE"), FailedPrecondition("handle", reason="HANDLE_UNKNOWN")]
)
def test_other_errors_keep_their_class(run: Runner, served: Served, error: HeadraceError) -> None:
    served.service.failures.append(error)
    with pytest.raises(type(error)):
        run(served.target, "prepare", "shop.users.ranking")


def test_unavailable_server_is_asked_again(run: Runner, served: Served) -> None:
    served.service.failures += [Unavailable("draining", reason="DRAINING", retry_after_ms=1)] * 2
    batch = run(served.target, "get_online_features", "shop.users.ranking@v1", entities=KEYS)
    assert batch.row_count == 3
    assert len(served.service.requests) == 3


def test_no_server_is_one_unavailable_error(run: Runner) -> None:
    with pytest.raises(Unavailable):
        run("127.0.0.1:1", "get_online_features", "s@v1", entities=KEYS, client={"retry_policy": RetryPolicy(1)})


def test_every_call_carries_a_deadline(run: Runner, served: Served) -> None:
    run(served.target, "get_online_features", "s@v1", entities=KEYS)
    run(served.target, "prepare", "s@v1")
    run(served.target, "write_features", "v@v1", TABLE.slice(0, 1))
    run(served.target, "delete_entity", "e", KEYS)
    limits_s = (1, 1, 60, 60)
    assert all(0 < left_s <= limit_s + 1 for left_s, limit_s in zip(served.service.budgets_s, limits_s, strict=True))


def test_deadline_that_passes_is_its_own_error(run: Runner, served: Served) -> None:
    def wait(_: int) -> None:
        served.service.released.wait(5)

    served.service.before_batch = wait
    with pytest.raises(DeadlineExceeded):
        run(served.target, "write_features", "v@v1", TABLE.slice(0, 1), timeout_s=0.05)
    served.service.released.set()


def test_token_goes_as_bearer(run: Runner, served: Served) -> None:
    run(served.target, "prepare", "s@v1", client={"token": "secret-1"})
    assert served.service.headers[0]["authorization"] == "Bearer secret-1"


@pytest.mark.parametrize("token", ["line\nbreak", "ü", "two words"])
def test_token_that_no_header_carries_is_refused_without_repeating_it(token: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Client("127.0.0.1:1", token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("selection", [{}, {"service": "s@v1", "features": ["a.b.c@v1:x"]}])
def test_not_exactly_one_selection_is_refused(run: Runner, served: Served, selection: dict[str, Any]) -> None:
    for method, more in (("get_online_features", {"entities": KEYS}), ("prepare", {})):
        with pytest.raises(InvalidArgument, match="exactly one selection"):
            run(served.target, method, **selection, **more)
    assert served.service.requests == []


def test_stream_that_ends_early_is_an_error_not_a_result(run: Runner, served: Served) -> None:
    served.service.ends_streams_at = 1
    with pytest.raises(InternalError, match="ended before its last batch"):
        run(served.target, "write_features", "v@v1", TABLE)
