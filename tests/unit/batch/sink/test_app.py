"""The worker tells that it is well only where every source is kept."""

import io
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from batch.sink import app
from batch.sink.app import Worker, parse_options
from batch.sink.streams import stream_of
from headrace.client.registry import RegistryClient
from headrace.definitions import DefinitionKind, Source
from headrace.definitions.registered import RegisteredSource, Stamp
from headrace.serving.logging import EventLog
from headrace.serving.server import Health
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from tests.cluster.processes import wait_for
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.batch.sink.mock_topic import LIMIT_S, NOW_US, TYPES, Mock, MockTopic, order, source

SERVING = 1  # grpc.health.v1
STAMP = Stamp(datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(0, UTC), "")


class FakeRegistry(RegistryClient):
    """Lists the sources of a test."""

    def __init__(self, *sources: Source) -> None:
        self.sources = list(sources)

    def list(self, kind: DefinitionKind) -> Iterator[RegisteredSource]:  # type: ignore[override]
        assert kind is DefinitionKind.SOURCE
        return (RegisteredSource(one, STAMP, number) for number, one in enumerate(self.sources))


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with closing(catalogue_of(tmp_path)) as opened:
        yield opened


@contextmanager
def working(
    catalogue: Catalogue, registry: FakeRegistry, bootstrap: str, states: list[int]
) -> Iterator[tuple[Worker, io.StringIO]]:
    words = ["--data", "unused", "--registry", "unused", "--kafka", bootstrap, "--interval-s", "0.01"]
    out = io.StringIO()
    health = Health()
    health.watch(lambda _, state: states.append(state))
    with closing(Telemetry(TelemetryConfig("test"))) as telemetry:
        runs = Runs(catalogue, Provenance("test"), lambda: NOW_US)
        log = EventLog("sink", lambda: 0.0, out)
        worker = Worker(registry, catalogue, runs, parse_options(words), telemetry=telemetry, health=health, log=log)
        worker.start()
        with closing(worker):
            yield worker, out


def test_source_that_cannot_be_kept_is_no_good_round_until_it_can(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "TopicLog", MockTopic)
    mock = Mock()
    mock.send(0, order(1))
    good = source(types={"user_id": "i64", "at": "timestamp_us"})
    changed = replace(source(types={**TYPES, "cents": "string"}), name="shop.web.returns")
    catalogue.event_table(stream_of(replace(source(), name="shop.web.returns")).columns)
    registry = FakeRegistry(good, changed)
    states: list[int] = []
    with working(catalogue, registry, mock.bootstrap, states) as (worker, out):
        wait_for(lambda: worker.failure_count >= 3 and worker.progress[good.name].row_count, LIMIT_S, out.getvalue)
        assert SERVING not in states and not worker.success_time_s
        registry.sources = [good]
        wait_for(lambda: states[-1] == SERVING and worker.success_time_s, LIMIT_S, out.getvalue)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    failed = [one for one in told if one["event"] == "sink_failed"]
    assert {(one["of"], one["reason"]) for one in failed} == {(changed.name, "TABLE_MISMATCH")}
