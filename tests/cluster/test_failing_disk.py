"""Rows 9 to 12 of the fault table: a full, failing, read-only or unreachable disk, and too little memory."""

import random
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
import pytest

from tests.cluster.calls import Caller, code_of, request_for_shard
from tests.cluster.checker import check_acknowledged, check_written, require
from tests.cluster.faults import Action, Fault, FaultRule, Op
from tests.cluster.history import FSYNC, LOG
from tests.cluster.processes import wait_for
from tests.cluster.run import FaultRun

DISK_BYTES: Final = 96 << 20
FILLER_BYTES: Final = 40 << 20
DEGRADED_LIMIT_S: Final = 60.0
RESUME_LIMIT_S: Final = 60.0
MEMORY_ROOM_BYTES: Final = 48 << 20
DESCRIPTORS_FEW: Final = 64
FULL: Final = ("RESOURCE_EXHAUSTED",)
FAILING: Final = ("UNAVAILABLE",)


def states(run: FaultRun) -> set[str]:
    """States of the shards."""
    with Caller(run.server.address) as caller:
        return {shard.state for shard in caller.shards()}


def wait_states(run: FaultRun, wanted: set[str], limit_s: float) -> None:
    """Waits until the shards are in these states and no other."""
    wait_for(lambda: states(run) == wanted, limit_s, lambda: f"{states(run)}\n{run.describe()}")


def check_reads(run: FaultRun) -> None:
    """Every key can be read, and no value is wrong."""
    history = run.history()
    read, unavailable = run.read_all()
    assert not unavailable
    require(check_written(run.history(), [*history.reads, read]), run.seed)


def failed_codes(run: FaultRun) -> set[str]:
    """Status names that writers saw."""
    return {code for _, code in run.history().failures}


def refuse_for_lack_of_space(run: FaultRun) -> None:
    """A shard on a full disk says so in its state, its health and its refusals."""
    with Caller(run.server.address) as caller:
        full = next(shard for shard in caller.shards() if shard.state == "READ_ONLY")
        assert "full" in full.detail
        assert not caller.is_serving(f"shard/{full.shard}")
        with pytest.raises(grpc.RpcError) as caught:
            caller.write(request_for_shard(full.shard))
    assert code_of(caught.value) == "RESOURCE_EXHAUSTED"


@pytest.fixture
def run_under_rule(
    start_run: Callable[..., FaultRun], faults_library: Path, tmp_path: Path
) -> tuple[FaultRun, FaultRule]:
    """A run whose server lies under a rule that is not armed."""
    run = start_run()
    rule = FaultRule(tmp_path / "rule")
    run.server.server.environment = rule.environment(faults_library)
    return run, rule


def test_full_disk_refuses_writes_and_resumes(
    start_run: Callable[..., FaultRun], small_disk: Callable[[int], Path]
) -> None:
    """Fault: the file system fills up under the writes.

    Outcome: writes answer RESOURCE_EXHAUSTED, reads go on, nothing acknowledged is lost; when there is room again,
    writes resume without a person.
    """
    disk = small_disk(DISK_BYTES)
    filler = disk / "filler"
    filler.write_bytes(bytes(FILLER_BYTES))
    run = start_run(data=disk / "data")
    run.server.start()
    run.start_writer([LOG], payload_bytes=20_000)
    wait_for(lambda: failed_codes(run), DEGRADED_LIMIT_S, run.describe)
    check_reads(run)
    refuse_for_lack_of_space(run)
    filler.unlink()
    run.wait_acknowledged(20)
    run.stop_writer()
    wait_states(run, {"SERVING"}, RESUME_LIMIT_S)
    run.check(failures=FULL)
    run.server.kill()
    run.server.start()
    run.check(failures=FULL)


def test_failed_sync_is_never_trusted(run_under_rule: tuple[FaultRun, FaultRule], source: random.Random) -> None:
    """Fault: one fsync of a write-ahead log answers EIO, and later ones succeed, as kernels do.

    Outcome: the writes of that sync are refused; the shard is opened again from what the disk holds and resumes;
    everything acknowledged is there, then and after a kill.
    """
    run, rule = run_under_rule
    run.server.start()
    run.start_writer([LOG, FSYNC])
    run.random_pause(source, 60)
    rule.arm(Fault(Op.SYNC, Action.EIO, ".log"))
    wait_for(lambda: rule.hits == 1, DEGRADED_LIMIT_S, run.describe)
    wait_for(lambda: failed_codes(run), DEGRADED_LIMIT_S, run.describe)
    wait_states(run, {"SERVING"}, RESUME_LIMIT_S)
    run.wait_acknowledged(20)
    run.stop_writer()
    run.check(failures=FAILING)
    run.server.kill()
    run.server.start()
    run.check(failures=FAILING)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Op.WRITE, Action.EIO, ".log"),
        Fault(Op.WRITE | Op.SYNC | Op.CREATE, Action.ENOSPC, "shard-", times=400),
        Fault(Op.WRITE | Op.CREATE, Action.EROFS, "shard-", times=400),
    ],
    ids=str,
)
def test_refused_log_write_is_not_acknowledged(
    run_under_rule: tuple[FaultRun, FaultRule], fault: Fault, source: random.Random
) -> None:
    """Fault: writes to the shards' folders fail for a while.

    Outcome: those writes are refused with one clear code, reads go on, the shards resume, nothing acknowledged is lost.
    """
    run, rule = run_under_rule
    run.server.start()
    run.start_writer([LOG, FSYNC])
    run.random_pause(source, 60)
    rule.arm(fault)
    wait_for(lambda: failed_codes(run), DEGRADED_LIMIT_S, run.describe)
    check_reads(run)
    rule.disarm()
    wait_states(run, {"SERVING"}, RESUME_LIMIT_S)
    run.wait_acknowledged(20)
    run.stop_writer()
    run.check(failures=FULL + FAILING)
    run.server.kill()
    run.server.start()
    run.check(failures=FULL + FAILING)


def remount(disk: Path, mode: str) -> None:
    """Makes a mounted file system writable or not."""
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def test_read_only_file_system_serves_reads(
    start_run: Callable[..., FaultRun], small_disk: Callable[[int], Path]
) -> None:
    """Fault: the file system of a killed server is read-only when it starts, as after a kernel's error.

    Outcome: the server stays up, says that it is degraded, serves reads and refuses writes; when the file system is
    writable again, it resumes by itself.
    """
    disk = small_disk(DISK_BYTES)
    run = start_run(data=disk / "data")
    run.server.start()
    run.start_writer([LOG])
    run.wait_acknowledged(40)
    run.server.kill()
    run.stop_writer()
    remount(disk, "ro")
    run.server.start()
    assert states(run) == {"READ_ONLY"}
    check_reads(run)
    run.start_writer([LOG])
    wait_for(lambda: failed_codes(run), DEGRADED_LIMIT_S, run.describe)
    assert run.server.server.exit_code() is None
    remount(disk, "rw")
    run.wait_acknowledged(20)
    run.stop_writer()
    wait_states(run, {"SERVING"}, RESUME_LIMIT_S)
    run.check(failures=FAILING)


def test_too_few_descriptors_serve_reads(run_under_rule: tuple[FaultRun, FaultRule]) -> None:
    """Fault: opening any file of a shard answers EMFILE for a while.

    Outcome: reads of what is held go on and no value is wrong; the process lives; afterwards everything is there.
    """
    run, rule = run_under_rule
    run.server.start()
    run.start_writer([LOG])
    run.wait_acknowledged(40)
    rule.arm(Fault(Op.OPEN | Op.CREATE, Action.EMFILE, "shard-", times=-1))
    run.wait_acknowledged(20)
    read, _ = run.read_all()
    require(check_written(run.history(), [read]), run.seed)
    assert run.server.server.exit_code() is None
    rule.disarm()
    run.stop_writer()
    wait_states(run, {"SERVING"}, RESUME_LIMIT_S)
    run.check(failures=FAILING)


def test_low_descriptor_limit_serves_or_says_so(start_run: Callable[..., FaultRun]) -> None:
    """Fault: `ulimit -n` is far too low at the start.

    Outcome: one clear line and an end, or a server that serves what it can; no traceback, no loss.
    """
    run = start_run()
    run.server.start()
    run.start_writer([LOG])
    run.wait_acknowledged(40)
    run.server.kill()
    run.stop_writer()
    run.server.server.limits = {resource.RLIMIT_NOFILE: DESCRIPTORS_FEW}
    run.server.launch()
    server = run.server.server
    wait_for(lambda: server.exit_code() is not None or server.event("listening"), DEGRADED_LIMIT_S, run.describe)
    assert "Traceback" not in server.tail()
    if server.exit_code() is None:
        run.server.kill()
    run.server.server.limits = {}
    run.server.start()
    history = run.history()
    marks = [mark for mark in history.marks if mark.name in ("start", "ready")]
    assert [mark.name for mark in marks[-2:]] == ["start", "ready"]
    run.check_present()


@pytest.mark.parametrize("action", [Action.EACCES, Action.EIO])
def test_unreachable_shards_are_not_wiped(run_under_rule: tuple[FaultRun, FaultRule], action: Action) -> None:
    """Fault: at the start every file of one shard is refused: no permission, or the disk fails.

    Outcome: the server starts; the other shards serve; the refused one comes back with all of its rows.
    """
    run, rule = run_under_rule
    run.server.start()
    run.start_writer([LOG])
    run.wait_acknowledged(40)
    run.server.kill()
    run.stop_writer()
    rule.arm(Fault(Op.OPEN | Op.CREATE, action, "shard-0003", times=-1))
    run.server.start()
    with Caller(run.server.address) as caller:
        found = {shard.shard: shard.state for shard in caller.shards()}
        assert {state for number, state in found.items() if number != 3} == {"SERVING"}
        assert found[3] != "SERVING"
        assert not caller.is_serving("shard/3")
    history = run.history()
    read, unavailable = run.read_all()
    acknowledged = check_acknowledged(history, {seen.key: seen for seen in read.rows}, unreadable=unavailable)
    require([*check_written(history, [read]), *acknowledged], run.seed)
    rule.disarm()
    wait_states(run, {"SERVING"}, RESUME_LIMIT_S)
    run.check()


def test_memory_limit_ends_like_a_kill(start_run: Callable[..., FaultRun]) -> None:
    """Fault: the address space of the server is limited to little more than it holds (`ulimit -v`).

    Outcome: it refuses work or dies; in both cases nothing acknowledged is lost and the next start is clean.
    """
    run = start_run()
    run.server.start()
    run.start_writer([LOG], payload_bytes=20_000, rows_per_request=80, writer_count=4)
    run.wait_acknowledged(20)
    server = run.server.server
    limit = server.virtual_bytes() + MEMORY_ROOM_BYTES
    resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, limit))
    enough = run.acknowledged_count() + 300
    wait_for(
        lambda: server.exit_code() is not None or failed_codes(run) or run.acknowledged_count() > enough,
        DEGRADED_LIMIT_S,
        run.describe,
    )
    if server.exit_code() is None:
        run.server.kill()
    run.stop_writer()
    run.server.start()
    run.check(failures=FULL + FAILING + ("INTERNAL", "UNKNOWN"))
