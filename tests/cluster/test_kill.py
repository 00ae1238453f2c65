"""Row 1 of the fault table: the server dies by SIGKILL at random points while it takes writes."""

import random
from collections.abc import Callable
from typing import Final

import grpc
import pytest

from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.cluster.calls import TIMEOUT_S, Caller
from tests.cluster.damage import shard_folders
from tests.cluster.dataset import ENTITY, event_time_us
from tests.cluster.history import LOG, MEMORY, Request, Write
from tests.cluster.run import FaultRun

KILL_COUNT: Final = 50
KILL_COUNT_LONG: Final = 200
PAUSE_ACKNOWLEDGED_MAX: Final = 60  # requests between two kills, at most
CHECK_EVERY: Final = 5  # kills; each check reads every key


def kill_often(run: FaultRun, source: random.Random, kill_count: int) -> None:
    """Kills and restarts on one data folder while the load goes on, then judges the whole run."""
    run.server.start()
    run.start_writer()
    for number in range(kill_count):
        run.random_pause(source, PAUSE_ACKNOWLEDGED_MAX)
        run.server.kill()
        run.server.start()
        if number % CHECK_EVERY == 0:
            run.check_present()
    run.wait_acknowledged(1)
    run.stop_writer()
    run.server.kill()
    run.server.start()
    history = run.check()
    assert sum(mark.name == "kill" for mark in history.marks) == kill_count + 1
    assert history.reads, "the load has read nothing"


@pytest.mark.timeout(900)  # 80 s on two free cores
def test_kills_at_random_points_lose_nothing(start_run: Callable[..., FaultRun], source: random.Random) -> None:
    """Fault: SIGKILL at random points during writes at LOG and FSYNC, on one data folder.

    Outcome: every start is clean and ready in time; every acknowledged write is there; each shard is the fold of its
    log up to its stored offset; reads never go back and never show what was not written; callers see UNAVAILABLE only.
    """
    kill_often(start_run(), source, KILL_COUNT)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_hundreds_of_kills_lose_nothing(start_run: Callable[..., FaultRun], source: random.Random) -> None:
    """Fault and outcome as in the short run, 200 times."""
    kill_often(start_run(), source, KILL_COUNT_LONG)


def test_kill_may_lose_memory_writes_but_never_half_of_one(start_run: Callable[..., FaultRun]) -> None:
    """Fault: SIGKILL during writes at MEMORY beside LOG.

    Outcome: what was acknowledged at LOG is there; of MEMORY only whole writes, in the shard's order.
    """
    run = start_run()
    run.server.start()
    run.start_writer([MEMORY, LOG])
    run.wait_acknowledged(100)
    run.server.kill()
    run.stop_writer()
    run.server.start()
    run.check([LOG], is_power_cut=True)


def test_erased_entity_stays_erased(start_run: Callable[..., FaultRun]) -> None:
    """Fault: SIGKILL after DeleteEntity was acknowledged.

    Outcome: the entity has no row after the restart, and an older row that comes late does not bring it back.
    """
    run = start_run()
    run.server.start()
    write = Request("7b7b9a3c-54a8-4f5e-9d0e-0a5a8f1f6c11", LOG, (Write(1, event_time_us(1, 0), 1),))
    with Caller(run.server.address) as caller:
        caller.write(write)
        keys = [pb.EntityColumn(join_key="item_id", int64_values=[1])]
        erase = pb.DeleteEntityRequest(entity=ENTITY, entity_columns=keys, durability=pb.DURABILITY_LOG)
        caller.online.DeleteEntity(erase, timeout=TIMEOUT_S)
        run.server.kill()
        run.server.start()
        assert caller.read([1])[0][0].seq is None
        late = Request("7b7b9a3c-54a8-4f5e-9d0e-0a5a8f1f6c12", LOG, (Write(1, event_time_us(2, 0), 2),))
        caller.write(late)
        assert caller.read([1])[0][0].seq is None


def test_rubbish_in_the_data_folder_is_tolerated(start_run: Callable[..., FaultRun]) -> None:
    """Fault: temporary files of a dead process lie in every folder.

    Outcome: the server starts and serves all of its data.
    """
    run = start_run()
    run.server.start()
    run.start_writer()
    run.wait_acknowledged(20)
    run.server.kill()
    run.stop_writer()
    for folder in [run.server.data, *shard_folders(run.server.data)]:
        for name in ("000999.dbtmp", "OPTIONS-000999.dbtmp", "probe.tmp", "registry.tmp", ".atomicwrite"):
            (folder / name).write_bytes(b"half written")
    run.server.start()
    run.check()


def test_second_server_on_the_data_folder_is_refused(start_run: Callable[..., FaultRun]) -> None:
    """Fault: a second server is started on a folder in use.

    Outcome: the second ends with one clear line; the first goes on.
    """
    run = start_run()
    run.server.start()
    second = start_run(data=run.server.data)
    second.server.server.launch()
    process = second.server.server.process
    assert process is not None and process.wait(TIMEOUT_S) not in (0, None)
    assert str(run.server.data) in second.server.server.tail()
    assert "Traceback" not in second.server.server.tail()
    with Caller(run.server.address) as caller:
        assert caller.is_serving()
        caller.write(Request("7b7b9a3c-54a8-4f5e-9d0e-0a5a8f1f6c13", LOG, (Write(1, event_time_us(1, 0), 1),)))


def test_killed_server_is_unavailable_to_callers(start_run: Callable[..., FaultRun]) -> None:
    """Fault: SIGKILL while a caller holds a channel.

    Outcome: UNAVAILABLE, and the same channel works after the start.
    """
    run = start_run()
    run.server.start()
    with Caller(run.server.address) as caller:
        caller.read([1])
        run.server.kill()
        with pytest.raises(grpc.RpcError) as caught:
            caller.read([1])
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        run.server.start()
        caller.read([1])
