"""Three real servers whose copies share a log on a real broker: killed, joined by others, and cut from it."""

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from core_ext.keys import encode_key, storage_key
from core_ext.row_codec import Schema
from headrace.client import Client, RegistryClient
from headrace.definitions import DefinitionKind
from headrace.definitions.registered import RegisteredEntity, RegisteredView
from headrace.errors import NotFound, Unavailable
from headrace.ring.values import Phase, Ring
from headrace.status import from_rpc_error
from headrace.types import Scalar, parse_type
from loadtest.events.encoding import arrow_message
from loadtest.events.shapes import Shape, definitions, view_name
from tests.cluster.processes import ServerProcess, wait_for
from tests.cluster.ring import LIMIT_S, SHARD_COUNT, TIMEOUT_S, RingProcesses, ring_of, shard_of_key
from tests.cluster.ring_log import RingWriter, Row, ends_of, fold, positions, stored
from tests.streams.fold import SPAN_FEATURES, folded, read_topic, served
from tests.streams.platform import apply, make_topic, produce
from tests.streams.test_events_to_features import recent
from tests.unit.feature_server.parts import ENTITY, FEATURES, VIEW
from tools.kafka import Brokers

NAMES = ("red", "green", "blue")
WRITERS = 2
KEYS_OF_WRITER = 40
DOWN_S = (0.1, 1.5)
BETWEEN_S = (0.5, 2.0)
SOURCE_PARTITIONS = 2
EVENTS = 2_000
EVENTS_PER_MESSAGE = 200


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    with Brokers(tmp_path_factory.mktemp("kafka"), 1) as started:
        yield started


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Topics that no other test sees."""
    return "".join(one if one.isalnum() else "_" for one in request.node.name) + "."


@pytest.fixture
def ring(tmp_path: Path, brokers: Brokers, prefix: str) -> Iterator[RingProcesses]:
    options = ("--kafka", brokers.bootstrap, "--topic-prefix", prefix, "--rows-replicas", "1")
    with ring_of(tmp_path, NAMES, 2, options) as processes:
        yield processes


@pytest.fixture
def writers(ring: RingProcesses, seed: int) -> Iterator[Sequence[RingWriter]]:
    """Writers of keys of their own, which run from here on."""
    made = [
        RingWriter(
            ring, range(number * KEYS_OF_WRITER, (number + 1) * KEYS_OF_WRITER), random.Random(f"{seed}/{number}")
        )
        for number in range(WRITERS)
    ]
    for writer in made:
        writer.start()
    yield made
    for writer in made:
        writer.stop()


def tails(ring: RingProcesses) -> Callable[[], str]:
    return lambda: "\n".join(f"{name}: {server.tail()}" for name, server in ring.servers.items())


def wait_writes(ring: RingProcesses, writers: Sequence[RingWriter], count: int = 3) -> None:
    """Until every writer has had so many more writes acknowledged."""
    ages = [max(writer.acknowledged.values(), default=0) for writer in writers]

    def have_come() -> bool:
        now = [max(writer.acknowledged.values(), default=0) for writer in writers]
        return all(age >= before + count for age, before in zip(now, ages, strict=True)) or any(
            writer.wrong for writer in writers
        )

    wait_for(have_come, LIMIT_S, tails(ring))


def at_rest(ring: RingProcesses, server_count: int) -> Ring:
    def is_at_rest() -> bool:
        held = ring.ring()
        phases = {replica.phase for shard in held.shards for replica in shard.replicas}
        return len(held.servers) == server_count and phases == {Phase.SERVING}

    wait_for(is_at_rest, LIMIT_S, tails(ring))
    return ring.ring()


def names_by_id(ring: RingProcesses) -> dict[str, str]:
    held = ring.ring()
    addresses = {ring.address(name): name for name in ring.ports if name != "control"}
    return {server_id: addresses[server.address] for server_id, server in held.servers.items()}


def check_all(ring: RingProcesses, bootstrap: str, topic: str, writers: Sequence[RingWriter]) -> None:
    """What was acknowledged stands at both owners of its shard, which are what the topic says, and nothing else."""
    assert [writer.wrong for writer in writers] == [[] for _ in writers]
    newest, ends = fold(bootstrap, topic)
    for writer in writers:
        for key, age in writer.acknowledged.items():
            assert age <= newest[key].age <= writer.attempted[key]
    check_copies(ring, newest, ends)


def check_copies(ring: RingProcesses, newest: Mapping[int, Row], ends: Sequence[int]) -> None:
    """Both owners of every shard hold the rows that its log leaves, at its end."""
    held, names = ring.ring(), names_by_id(ring)
    check_level(ring, ends)
    key_of, schema = stored_as(ring)
    for server_id, name in names.items():
        mine = [key for key in newest if server_id in held.shards[shard_of_key(key)].owners]
        assert stored(ring, name, {key: key_of(key) for key in mine}, schema) == {key: newest[key] for key in mine}


def check_level(ring: RingProcesses, ends: Sequence[int]) -> None:
    """Both owners of every shard come to the end of its log, and are equal there."""
    held, names = ring.ring(), names_by_id(ring)

    def are_level() -> bool:
        found = {server_id: positions(ring, name) for server_id, name in names.items()}
        return all(
            found[owner][number][1] + 1 == ends[number]
            for number, shard in enumerate(held.shards)
            for owner in shard.owners
        )

    wait_for(are_level, LIMIT_S, tails(ring))
    found = {server_id: positions(ring, name) for server_id, name in names.items()}
    for number, shard in enumerate(held.shards):
        assert len(shard.owners) == 2
        assert len({found[owner][number] for owner in shard.owners}) == 1, "epoch, offset and content are one"


def stored_as(ring: RingProcesses) -> tuple[Callable[[int], bytes], Schema]:
    """Storage keys of users, and the schema of their rows."""
    with RegistryClient(ring.address("control")) as client:
        entity = client.get(DefinitionKind.ENTITY, ENTITY)
        view = client.get(DefinitionKind.FEATURE_VIEW, VIEW)
    assert isinstance(entity, RegisteredEntity) and isinstance(view, RegisteredView)
    entity_id, view_id = entity.entity_id, view.view_id
    types = [parse_type(kind) for kind in FEATURES.values()]
    schema = Schema(view.schema_id, [(kind.scalar, kind.shape, kind.list_size) for kind in types])
    return lambda key: storage_key(entity_id, encode_key([Scalar.I64], [key]), view_id), schema


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])])
def test_killed_servers_lose_no_acknowledged_write_and_both_owners_are_the_fold_of_the_log(
    ring: RingProcesses, writers: Sequence[RingWriter], brokers: Brokers, prefix: str, seed: int, kills: int
) -> None:
    source = random.Random(f"{seed}/kills")
    wait_writes(ring, writers)
    for _ in range(kills):
        name = source.choice(NAMES)
        ring.servers[name].kill()
        time.sleep(source.uniform(*DOWN_S))  # what is written meanwhile is what it has to catch up with
        ring.start(name)
        time.sleep(source.uniform(*BETWEEN_S))  # how far it comes before the next one is the fault that is tested
    wait_writes(ring, writers)
    for writer in writers:
        writer.stop()
    at_rest(ring, 3)
    check_all(ring, brokers.bootstrap, f"{prefix}rows.ring", writers)
    assert sum(writer.read_count for writer in writers) > 0


def test_a_server_joins_by_snapshot_and_log_while_rows_are_written(
    ring: RingProcesses, writers: Sequence[RingWriter], brokers: Brokers, prefix: str
) -> None:
    wait_writes(ring, writers)
    refused = sum(writer.refused_count for writer in writers)
    ring.start("white")
    held = at_rest(ring, 4)
    wait_writes(ring, writers)
    for writer in writers:
        writer.stop()
    new = next(server.server_id for server in held.servers.values() if server.zone == "white")
    assert sum(new in shard.owners for shard in held.shards) == 4, "a fourth of 16 copies"
    assert sum(writer.refused_count for writer in writers) == refused, "a move holds up no write"
    check_all(ring, brokers.bootstrap, f"{prefix}rows.ring", writers)


def test_without_its_broker_the_ring_serves_on_and_takes_writes_when_it_is_back(
    ring: RingProcesses, writers: Sequence[RingWriter], brokers: Brokers, prefix: str, seed: int
) -> None:
    wait_writes(ring, writers)
    for writer in writers:
        writer.stop()
    # What is acknowledged in the moment when the broker stops may have reached no copy: these have.
    check_all(ring, brokers.bootstrap, f"{prefix}rows.ring", writers)
    keys = range(WRITERS * KEYS_OF_WRITER, (WRITERS + 1) * KEYS_OF_WRITER)
    late = RingWriter(ring, keys, random.Random(f"{seed}/late"))
    (broker,) = brokers.brokers
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    try:
        late.start()
        wait_for(lambda: late.refused_count > 0, LIMIT_S, tails(ring))
        known, attempted = writers[0].acknowledged, writers[0].attempted
        statuses, ages = ring.read("red", sorted(known))
        assert {status & 0x0F for status in statuses} == {1}
        assert all(known[key] <= age <= attempted[key] for key, age in zip(sorted(known), ages, strict=True))
    finally:
        broker.process.send_signal(signal.SIGCONT)
    try:
        wait_writes(ring, [late])
    finally:
        late.stop()
    check_all(ring, brokers.bootstrap, f"{prefix}rows.ring", [*writers, late])


def test_a_server_that_was_down_for_longer_than_the_log_is_kept_is_filled_by_its_peers(
    ring: RingProcesses, writers: Sequence[RingWriter], brokers: Brokers, prefix: str
) -> None:
    topic = f"{prefix}rows.ring"
    wait_writes(ring, writers)
    ring.servers["blue"].kill()
    wait_writes(ring, writers, 10)
    for writer in writers:
        writer.stop()
    newest, ends = fold(brokers.bootstrap, topic)
    places = [TopicPartition(topic, number, end) for number, end in enumerate(ends)]
    admin = AdminClient({"bootstrap.servers": brokers.bootstrap})
    for cut in admin.delete_records(places).values():
        cut.result(TIMEOUT_S)
    ring.start("blue")
    wait_for(lambda: "LOG_GAP" in ring.servers["blue"].tail(), LIMIT_S, tails(ring))

    def are_filled() -> bool:
        at_rest(ring, 3)
        try:
            check_copies(ring, newest, ends)
        except grpc.RpcError as error:  # another shard was found to be behind, and is being copied
            if from_rpc_error(error).reason not in {"RING_EPOCH", "COPY_NOT_WHOLE"}:
                raise
            return False
        return True

    wait_for(are_filled, LIMIT_S, tails(ring))


def test_rows_of_the_offline_store_reach_both_owners_by_the_log(ring: RingProcesses) -> None:
    ring.write([5], age=33)
    key_of, schema = stored_as(ring)
    held, names = ring.ring(), names_by_id(ring)
    for owner in held.shards[shard_of_key(5)].owners:

        def has_come(name: str = names[owner]) -> bool:
            found = stored(ring, name, {5: key_of(5)}, schema)
            return 5 in found and found[5].age == 33

        wait_for(has_come, LIMIT_S, tails(ring))


def test_events_of_a_stream_count_once_at_both_owners_whoever_is_killed(
    ring: RingProcesses, brokers: Brokers, prefix: str, seed: int
) -> None:
    topic = f"{prefix}clicks"
    make_topic(brokers.bootstrap, topic, SOURCE_PARTITIONS)
    apply(ring.address("control"), definitions(Shape.CLICKS, topic, "arrow"))
    shared = ["--kafka", brokers.bootstrap, "--registry", ring.address("control"), "--topic-prefix", prefix]
    worker = ServerProcess(
        "feature_server.pipeline.app",
        ["--data", str(ring.folder / "worker"), "--ring-shards", str(SHARD_COUNT), *shared],
        ring.folder / "worker.log",
    )
    ring.servers["worker"] = worker
    worker.launch()
    worker.wait_listening()
    generator, source = recent(Shape.CLICKS, seed), random.Random(f"{seed}/stream")
    for _ in range(3):
        batches = generator.batches(EVENTS, EVENTS_PER_MESSAGE)
        messages = [(place % SOURCE_PARTITIONS, arrow_message(batch)) for place, batch in enumerate(batches)]
        produce(brokers.bootstrap, topic, messages)
        time.sleep(source.uniform(*DOWN_S))  # how far the processes come is the fault that is tested
        name = source.choice(NAMES)
        ring.servers[name].kill()
        worker.kill()
        worker.launch()
        ring.start(name)
        worker.wait_listening()
    at_rest(ring, 3)
    for key in ("user_id", "item_id"):
        expected = clicks_by(brokers.bootstrap, topic, key)
        assert sum(one[0] for one in expected.values()) == 3 * EVENTS
        features = [f"{view_name(Shape.CLICKS, key)}:{name}" for name in SPAN_FEATURES]
        for name in NAMES:
            wait_for(partial(read_clicks, ring, name, features, key, expected), LIMIT_S, tails(ring))
    check_level(ring, ends_of(brokers.bootstrap, f"{prefix}rows.ring"))


def clicks_by(bootstrap: str, topic: str, key: str) -> dict[int, tuple[Any, ...]]:
    """What a source of clicks leaves of each entity, in plain Python."""
    events: list[tuple[tuple[int, int, int, int], dict[str, Any]]] = []
    for message in read_topic(bootstrap, topic):
        with pa.ipc.open_stream(message.value) as reader:
            table = reader.read_all()
        plain = table.set_column(0, "event_time", table.column("event_time").cast(pa.int64()))
        events += [
            (
                (event["event_time"], message.time_us, message.partition, message.offset * EVENTS_PER_MESSAGE + row),
                event,
            )
            for row, event in enumerate(plain.to_pylist())
        ]
    return folded(events, key, "dwell_ms", "page")


def read_clicks(
    ring: RingProcesses, name: str, features: Sequence[str], key: str, expected: dict[int, tuple[Any, ...]]
) -> bool:
    """Whether a server answers what is expected, of its own shards and of those of its peers."""
    try:
        with Client(ring.address(name)) as client:
            prepared = client.prepare(features=features)
            table = client.get_online_features(prepared, entities={key: [*expected]}, timeout_s=10).to_arrow()
    except (NotFound, Unavailable):
        return False
    return served(table) == list(expected.values())
