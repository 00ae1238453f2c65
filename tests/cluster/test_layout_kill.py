"""`headrace service layout --apply` dies by SIGKILL while it moves rows: none is lost, and another run ends it."""

import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import pytest

from core_ext.keys import split_storage_key
from feature_server.domain.storage_keys import is_record, view_id_of
from feature_server.storage.packed_rows import PACK_BIT, read_layout
from feature_server.storage.repack import content_hash
from feature_server.storage.rocks import RocksOpener
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from headrace.convert.definitions import set_to_pb
from protos.control.v1 import registry_service_pb2 as registry_pb
from protos.control.v1 import registry_service_pb2_grpc as registry_grpc
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from tests.cluster.calls import SHARD_COUNT, TIMEOUT_S
from tests.cluster.faults import Action, Fault, FaultRule, Op, When
from tests.cluster.processes import FeatureServer, ServerProcess, wait_for
from tests.integration.test_cli_layout import PAIR, SECOND, definitions
from tests.unit.feature_server.parts import VIEW, ipc, shop_batch

KEYS: Final = range(20_000)  # some batches of each shard
BATCH_KEYS: Final = 5_000
APPLY_LIMIT_S: Final = 120.0
NEVER: Final = 1 << 30
RANDOM_KILLS: Final = 4
STORE: Final = "store"

# Before the first row moves: the note that rows are on their way.
BEFORE: Final = (
    Fault(Op.RENAME, Action.KILL, f"{STORE}/layout"),
    Fault(Op.CREATE, Action.KILL, ".sst", nth=SHARD_COUNT, when=When.AFTER),
)
# When every row has moved: the note that they have.
AFTER: Final = (
    Fault(Op.RENAME, Action.KILL, f"{STORE}/layout", nth=1),
    Fault(Op.RENAME, Action.KILL, f"{STORE}/layout", nth=1, when=When.AFTER),
)


@dataclass(frozen=True)
class Store:
    """The data folder of a server that was killed, and what it answered."""

    folder: Path
    registry: str
    answers: list[bytes]
    hashes: list[int]

    def copied(self, folder: Path) -> "Store":
        shutil.copytree(self.folder, folder / STORE)
        return Store(folder / STORE, self.registry, self.answers, self.hashes)

    def apply(self, rule: FaultRule | None = None, library: Path | None = None) -> ServerProcess:
        """The process that moves the rows, as the command starts it."""
        arguments = ["--data", str(self.folder), "--service", PAIR, "--entities", "100", "--apply", "--all"]
        environment = rule.environment(library) if rule is not None and library is not None else {}
        return ServerProcess("feature_server.layout_report", arguments, self.folder.parent / "apply.out", environment)

    def finish(self) -> int:
        """Applies to the end; the rows that were still to be moved."""
        process = self.apply()
        process.launch()
        wait_for(lambda: process.exit_code() is not None, APPLY_LIMIT_S, process.tail)
        assert process.exit_code() == 0, process.tail()
        told = json.loads(process.log.read_bytes().splitlines()[-1])
        return int(told["applied"]["rows_moved"])

    def entries(self) -> tuple[list[int], set[bytes], set[bytes]]:
        """The hash of the rows of each shard, and the entities that are packed and those that lie apart."""
        options = shard_options(SharedMemory(StoreBudget()), SHARD_COUNT)
        hashes: list[int] = []
        packed: set[bytes] = set()
        apart: set[bytes] = set()
        for number in range(SHARD_COUNT):
            shard = RocksOpener(self.folder / f"shard-{number:04}", options).open()
            try:
                hashes.append(content_hash(shard))
                for key, _ in shard.items():
                    if not is_record(key):
                        (packed if view_id_of(key) & PACK_BIT else apart).add(split_storage_key(key)[1])
            finally:
                shard.close()
        return hashes, packed, apart

    def check_served(self) -> None:
        """A server on it answers as the one before, and takes writes."""
        server = FeatureServer.create(self.folder.parent, self.registry, data=self.folder)
        server.start()
        try:
            assert read(server) == self.answers
            write(server, VIEW, KEYS[:100])
            assert read(server) != self.answers, "the event times are newer"
        finally:
            server.kill()

    def check_refused(self) -> None:
        """No server starts on it, and it says what to do."""
        server = FeatureServer.create(self.folder.parent, self.registry, data=self.folder)
        server.launch()
        wait_for(lambda: server.server.exit_code() is not None, TIMEOUT_S, server.server.tail)
        assert server.server.exit_code() != 0
        assert "run the command `headrace service layout SERVICE --apply` again to its end" in server.server.tail()
        assert "Traceback" not in server.server.tail()


def stub_of(server: FeatureServer) -> pb_grpc.OnlineFeatureServiceStub:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return pb_grpc.OnlineFeatureServiceStub(grpc.insecure_channel(server.address, options))


def write(server: FeatureServer, view: str, keys: range) -> None:
    batch = shop_batch(keys, time.time_ns() // 1_000)
    if view.startswith(SECOND):
        batch = batch.select(["user_id", "event_time", "age"])
    request = pb.WriteFeaturesRequest(feature_view=view, arrow_ipc=ipc(batch))
    assert stub_of(server).WriteFeatures(request, timeout=TIMEOUT_S).row_count == len(keys)


def read(server: FeatureServer) -> list[bytes]:
    """Columns of every key, without the times of the reads."""
    stub, found = stub_of(server), []
    for first in range(0, len(KEYS), BATCH_KEYS):
        columns = [pb.EntityColumn(join_key="user_id", int64_values=KEYS[first : first + BATCH_KEYS])]
        options = pb.ReadOptions(include_event_times=True)
        request = pb.GetOnlineFeaturesRequest(feature_service=PAIR, entity_columns=columns, options=options)
        answer = stub.GetOnlineFeatures(request, timeout=TIMEOUT_S)
        found += [column.SerializeToString() for column in answer.columns]
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two views of many users, half of the rows in tables and half in the logs of a killed server."""
    folder = tmp_path_factory.mktemp("layout")
    control = ServerProcess(
        "control_plane.app", ["--data", str(folder / "control"), "--port", "0"], folder / "control.log"
    )
    control.launch()
    try:
        registry = f"127.0.0.1:{control.wait_listening()}"
        with grpc.insecure_channel(registry) as channel:
            request = registry_pb.ApplyDefinitionsRequest(definitions=set_to_pb(definitions()))
            registry_grpc.RegistryServiceStub(channel).ApplyDefinitions(request, timeout=TIMEOUT_S)
        server = FeatureServer.create(folder, registry, data=folder / STORE)
        for view in (VIEW, f"{SECOND}@v1"):
            server.start()
            wait_for((folder / STORE / "registry").exists, TIMEOUT_S, server.server.tail)
            for first in range(0, len(KEYS), BATCH_KEYS):
                write(server, view, KEYS[first : first + BATCH_KEYS])
            answers = read(server)
            server.kill()
        original = Store(folder / STORE, registry, answers, [])
        hashes, packed, apart = original.copied(folder / "seen").entries()
        assert (len(packed), len(apart)) == (0, len(KEYS))
        yield Store(original.folder, registry, answers, hashes)
    finally:
        control.stop()


def killed_at(store: Store, rule: FaultRule, fault: Fault, library: Path) -> None:
    """Applies until the process dies at the fault."""
    process = store.apply(rule, library)
    rule.arm(fault)
    process.launch()
    wait_for(lambda: process.exit_code() is not None, APPLY_LIMIT_S, process.tail)
    assert (process.exit_code(), rule.hits) == (-9, 1), f"{fault} was not met\n{process.tail()}"
    rule.disarm()


def log_writes(store: Store, rule: FaultRule, library: Path) -> int:
    """Writes to write-ahead logs of a whole run."""
    process = store.apply(rule, library)
    rule.arm(Fault(Op.WRITE, Action.KILL, ".log", nth=NEVER))
    process.launch()
    wait_for(lambda: process.exit_code() is not None, APPLY_LIMIT_S, process.tail)
    assert process.exit_code() == 0, process.tail()
    return NEVER - rule.countdown


@pytest.mark.timeout(600)
def test_death_while_rows_move_leaves_each_in_one_place(written: Store, faults_library: Path, tmp_path: Path) -> None:
    """Fault: SIGKILL before and in the middle of a write of rows on their way, twice in one apply.

    Outcome: some entities have moved and some have not, and the rows of each shard are those of before; no server
    starts on them; another apply moves the rest, and a server answers as before.
    """
    rule = FaultRule(tmp_path / "rule")
    store = written.copied(tmp_path)
    moved_before = 0
    for left, action in ((20, Action.KILL), (8, Action.TEAR)):  # of the 32 batches or more
        counted = store.copied(tmp_path / f"whole-{left}")  # a run that goes on has fewer writes
        count = log_writes(counted, rule, faults_library)
        killed_at(store, rule, Fault(Op.WRITE, action, ".log", count - left), faults_library)
        assert not read_layout(store.folder).is_whole
        hashes, packed, apart = store.entries()
        assert hashes == written.hashes
        assert not packed & apart, "an entity is in one place"
        assert len(packed) + len(apart) == len(KEYS)
        assert moved_before < len(packed) < len(KEYS), "rows were on their way"
        moved_before = len(packed)
    store.check_refused()
    assert store.finish() == 2 * (len(KEYS) - moved_before)
    assert store.entries()[1:] == (packed | apart, set())
    store.check_served()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", [*BEFORE, *AFTER], ids=str)
def test_death_at_a_point_around_the_move_is_got_over(
    written: Store, faults_library: Path, tmp_path: Path, fault: Fault
) -> None:
    """Fault: SIGKILL before the first row moves, or when all have moved and that is about to be noted or just was.

    Outcome: either no row has moved and a server starts, or it wants the apply to be ended; what it reads is the same.
    """
    store = written.copied(tmp_path)
    killed_at(store, FaultRule(tmp_path / "rule"), fault, faults_library)
    layout = read_layout(store.folder)
    hashes, packed, apart = store.entries()
    assert hashes == written.hashes
    assert (len(packed), len(apart)) == ((0, len(KEYS)) if fault in BEFORE else (len(KEYS), 0))
    assert layout.is_whole == (fault != AFTER[0])
    if not layout.is_whole:
        store.check_refused()
        assert store.finish() == 0
    store.check_served()


@pytest.mark.timeout(600)
def test_deaths_at_random_moments_lose_nothing(written: Store, source: random.Random, tmp_path: Path) -> None:
    """Fault: SIGKILL of one apply after the other, at any moment of it.

    Outcome: the rows of each shard are those of before after each; the last apply comes to its end.
    """
    began_s = time.monotonic()
    written.copied(tmp_path / "timed").finish()
    whole_s = time.monotonic() - began_s
    store = written.copied(tmp_path)
    for _ in range(RANDOM_KILLS):
        process = store.apply()
        process.launch()
        time.sleep(source.uniform(0, whole_s))  # nothing tells from outside how far it is
        process.kill()
        assert store.entries()[0] == written.hashes
    store.finish()
    store.check_served()
