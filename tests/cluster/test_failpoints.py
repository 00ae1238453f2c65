"""Row 2 of the fault table: the server dies at named points of its file operations."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.faults import Action, Fault, FaultRule, Op, When
from tests.cluster.processes import wait_for
from tests.cluster.run import FaultRun

DEATH_LIMIT_S: Final = 60.0
STARTS_MAX: Final = 10  # four tables are merged, and each start makes one

# While it takes writes: the log of a shard.
WRITING: Final = (
    Fault(Op.WRITE, Action.KILL, ".log", nth=40),
    Fault(Op.WRITE, Action.KILL, ".log", nth=40, when=When.AFTER),
    Fault(Op.WRITE, Action.TEAR, ".log", nth=40),
    Fault(Op.SYNC, Action.KILL, ".log", nth=15),
    Fault(Op.SYNC, Action.KILL, ".log", nth=15, when=When.AFTER),
)
# While it starts on the logs of a killed life: replay, flush, new manifest, removal of what is old.
STARTING: Final = (
    Fault(Op.CREATE, Action.KILL, ".sst", nth=2, when=When.AFTER),
    Fault(Op.WRITE, Action.KILL, ".sst", nth=3),
    Fault(Op.WRITE, Action.TEAR, ".sst", nth=3),
    Fault(Op.SYNC, Action.KILL, ".sst", nth=1),
    Fault(Op.CREATE, Action.KILL, "MANIFEST", nth=1, when=When.AFTER),
    Fault(Op.WRITE, Action.TEAR, "MANIFEST", nth=2),
    Fault(Op.SYNC, Action.KILL, "MANIFEST", nth=2, when=When.AFTER),
    Fault(Op.RENAME, Action.KILL, "CURRENT", nth=1),
    Fault(Op.RENAME, Action.KILL, "CURRENT", nth=1, when=When.AFTER),
    Fault(Op.RENAME, Action.KILL, "OPTIONS", nth=1),
    Fault(Op.UNLINK, Action.KILL, ".log", nth=1),
    Fault(Op.UNLINK, Action.KILL, ".log", nth=1, when=When.AFTER),
    Fault(Op.UNLINK, Action.KILL, "MANIFEST", nth=1),
)
# Once some starts have left enough tables.
MERGING: Final = Fault(Op.UNLINK, Action.KILL, ".sst")


@pytest.fixture
def run_under_rule(
    start_run: Callable[..., FaultRun], faults_library: Path, tmp_path: Path
) -> tuple[FaultRun, FaultRule]:
    """A run whose server lies under a rule that is not armed."""
    run = start_run()
    rule = FaultRule(tmp_path / "rule")
    run.server.server.environment = rule.environment(faults_library)
    return run, rule


def wait_death(run: FaultRun, fault: Fault) -> None:
    """Waits for the server to die at the fault."""
    server = run.server.server
    wait_for(lambda: server.exit_code() is not None, DEATH_LIMIT_S, lambda: f"{fault} was not met\n{run.describe()}")
    run.server.recorder.mark("kill", str(fault))


def is_dead_after(run: FaultRun, acknowledged: int) -> bool:
    """Waits until the server is dead or so many more requests were acknowledged; whether it is dead."""
    target = run.acknowledged_count() + acknowledged
    server = run.server.server
    wait_for(lambda: server.exit_code() is not None or run.acknowledged_count() >= target, DEATH_LIMIT_S, run.describe)
    return server.exit_code() is not None


def start_until_dead(run: FaultRun, fault: Fault) -> None:
    """Kills and starts the server until it dies at the fault; only a merge needs more than one start."""
    for _ in range(STARTS_MAX):
        run.server.kill()
        run.server.launch()
        if is_dead_after(run, acknowledged=10):
            run.server.recorder.mark("kill", str(fault))
            return
    raise AssertionError(f"{fault} was not met in {STARTS_MAX} starts\n{run.describe()}")


def test_death_at_a_point_of_writing_loses_nothing(run_under_rule: tuple[FaultRun, FaultRule]) -> None:
    """Fault: SIGKILL before, after or in the middle of a write or sync of a write-ahead log.

    Outcome: as for a kill at random; a half written record is no row.
    """
    run, rule = run_under_rule
    run.server.start()
    run.start_writer()
    for fault in WRITING:
        run.wait_acknowledged(10)
        rule.arm(fault)
        wait_death(run, fault)
        assert rule.hits == 1, fault
        rule.disarm()
        run.server.start()
        run.check_present()
    run.stop_writer()
    run.check()


@pytest.mark.timeout(600)  # 50 s on two free cores
def test_death_at_a_point_of_starting_loses_nothing(
    run_under_rule: tuple[FaultRun, FaultRule], source: random.Random
) -> None:
    """Fault: SIGKILL during recovery: flush, manifest, renames, removals, the first merge of tables.

    Outcome: the next start is clean without a manual step, and whatever the dead one left behind is tolerated.
    """
    run, rule = run_under_rule
    run.server.start()
    run.start_writer()
    for fault in [*source.sample(STARTING, len(STARTING)), MERGING]:
        run.wait_acknowledged(10)
        rule.arm(fault)
        start_until_dead(run, fault)
        assert rule.hits == 1, fault
        rule.disarm()
        run.server.start()
        run.check_present()
    run.stop_writer()
    run.check()
