"""LineageService over a real server, a real database and the client."""

from collections.abc import Iterator

import grpc
import pytest
from sqlalchemy import Engine

from control_plane.domain.lineage.lineage import Lineage
from control_plane.domain.lineage.mirror import Mirror
from control_plane.domain.registry import Registry
from control_plane.rpc import lineage_servicer
from control_plane.rpc.lineage_servicer import LineageServicer
from control_plane.store.lineage_store import SqlLineageStore
from control_plane.store.registry_store import SqlRegistryStore
from headrace.client import LineageClient
from headrace.errors import InvalidArgument, NotFound
from headrace.lineage.values import Effect, NodeChange, NodeKind, Run, RunData, RunState, UpstreamKind
from headrace.serving.auth import OpenAuthenticator
from headrace.serving.calls import add_service
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.principal import LOCAL
from headrace.serving.server import bind, build_server
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.status import from_rpc_error
from protos.control.v1 import lineage_service_pb2 as pb
from protos.control.v1 import lineage_service_pb2_grpc as rpc
from tests.unit.control_plane.clock import Clock
from tests.unit.headrace.definitions.samples import MODEL, SERVICE, SOURCE, VIEW, whole_set

LIMIT_S = 30.0
RUN = Run(
    run_id="0b8b1c1e-2b5f-4b52-9d2a-1d3f6b1e7a10",
    job="training_set",
    state=RunState.SUCCEEDED,
    start_time_us=1_000_000,
    end_time_us=2_000_000,
    inputs=(RunData(f"{SERVICE}@v1"), RunData(f"{VIEW}@v1", "7")),
    outputs=(RunData("training_set:delays"),),
    git_sha="abc",
    kernel_version="1",
    digests={"training_set:delays": "ab" * 32},
)


@pytest.fixture
def address(engine: Engine, registry: Registry, store: SqlRegistryStore) -> Iterator[str]:
    registry.apply_definitions(LOCAL, whole_set())
    held = SqlLineageStore(engine)
    lineage = Lineage(held, store, Mirror(held), Clock())
    lineage.start()
    telemetry = Telemetry(TelemetryConfig("control_plane", None))
    contract = lineage_servicer.SERVICE
    server = build_server(OpenAuthenticator(), method_permissions(contract.file), "127.0.0.1")
    log = EventLog("control_plane", lambda: 0.0)
    add_service(server, contract, LineageServicer(lineage, lambda: LOCAL), telemetry, log)
    port = bind(server, "127.0.0.1", 0)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()
    telemetry.close()


@pytest.fixture
def client(address: str) -> Iterator[LineageClient]:
    with LineageClient(address) as made:
        yield made


def test_pages_of_the_client_are_the_whole(client: LineageClient) -> None:
    (whole,) = client.impact(SOURCE, "dep_delay", change=NodeChange.DROP)
    pages = list(client.impact(SOURCE, "dep_delay", change=NodeChange.DROP, page_size=1))
    assert [item for page in pages for item in page.items] == list(whole.items)
    assert [(item.node.name, item.hop_count, item.effect) for item in whole.items] == [
        (f"{VIEW}@v1:dep_delay", 1, Effect.BROKEN),
        (f"{SERVICE}@v1", 2, Effect.STARVED),
        (f"{MODEL}@v1", 3, Effect.STARVED),
    ]
    assert {page.totals for page in pages} == {whole.totals}
    assert sum(total.count for total in whole.totals) == len(whole.items)


def test_kinds_and_times_are_asked(client: LineageClient) -> None:
    (models,) = client.impact(SOURCE, kinds=[NodeKind.MODEL])
    assert [item.node.name for item in models.items] == [f"{MODEL}@v1"]
    assert models.known_time_us > 0
    (before,) = client.impact(SOURCE, as_of_us=0)
    assert (before.items, before.totals) == ((), ())


def test_a_run_is_kept_once(client: LineageClient) -> None:
    assert client.record_run(RUN)
    assert not client.record_run(RUN)
    (page,) = client.impact(f"{VIEW}@v1", kinds=[NodeKind.TRAINING_SET])
    assert [item.node.name for item in page.items] == ["training_set:delays"]


def test_refusals_reach_the_caller_with_their_fields(address: str, client: LineageClient) -> None:
    with pytest.raises(NotFound) as unknown:
        next(client.impact(SOURCE, "nothing"))
    assert unknown.value.reason == "UNKNOWN_NODE"
    with grpc.insecure_channel(address) as channel:
        stub = rpc.LineageServiceStub(channel)
        for call, field in (
            (lambda: stub.RecordRun(pb.RecordRunRequest(), timeout=LIMIT_S), "run"),
            (lambda: stub.RecordRun(pb.RecordRunRequest(run=pb.Run(job="x")), timeout=LIMIT_S), "run.state"),
            (
                lambda: stub.ListImpactedNodes(
                    pb.ListImpactedNodesRequest(name=SOURCE, node_kinds=[pb.NodeKind.ValueType(99)]), timeout=LIMIT_S
                ),
                "node_kinds",
            ),
            (
                lambda: stub.ListImpactedNodes(pb.ListImpactedNodesRequest(name=SOURCE, page_size=-1), timeout=LIMIT_S),
                "page_size",
            ),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            error = from_rpc_error(caught.value)
            assert isinstance(error, InvalidArgument)
            assert error.field == field


def test_changes_and_requirements_come_page_by_page(client: LineageClient) -> None:
    whole = list(client.changes(f"{MODEL}@v1", start_us=0))
    assert list(client.changes(f"{MODEL}@v1", start_us=0, page_size=2)) == whole
    assert {one.kind for one in whole} == {UpstreamKind.EDGE, UpstreamKind.SCHEMA}
    needed = list(client.requirements(f"{MODEL}@v1"))
    assert list(client.requirements(f"{MODEL}@v1", page_size=1)) == needed
    assert {one.node.name for one in needed} >= {f"{SERVICE}@v1", f"{VIEW}@v1", SOURCE}


def test_changes_need_a_start(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = rpc.LineageServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListUpstreamChanges(pb.ListUpstreamChangesRequest(name=SOURCE), timeout=LIMIT_S)
    error = from_rpc_error(caught.value)
    assert (error.reason, error.field) == ("REQUIRED", "start_time")
