"""Row 3 of the fault table: the machine loses power, and with it everything that was not on stable storage."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.history import FSYNC, LOG, MEMORY
from tests.cluster.power import Journal, Tail
from tests.cluster.run import FaultRun

CUTS_PER_TAIL: Final = 2
CUTS_PER_TAIL_LONG: Final = 40
ACKNOWLEDGED_MAX: Final = 150


def cut_power_once(run: FaultRun, library: Path, source: random.Random, tail: Tail) -> str:
    """Writes, kills, drops what was not stable, starts and judges."""
    run.server.data.mkdir(exist_ok=True)
    journal = Journal.begin(run.folder / "journal", run.server.data)
    run.server.server.environment = journal.environment(library)
    run.server.start()
    run.start_writer([MEMORY, LOG, FSYNC])
    run.random_pause(source, ACKNOWLEDGED_MAX)
    run.server.kill()
    run.stop_writer()
    dropped = journal.cut_power(source, tail)
    run.server.server.environment = {}
    run.server.start()
    run.check([FSYNC], is_power_cut=True)
    return dropped


@pytest.mark.parametrize("tail", Tail)
def test_power_cut_keeps_what_was_synced(
    start_run: Callable[..., FaultRun], journal_library: Path, source: random.Random, tail: Tail
) -> None:
    """Fault: SIGKILL, then every byte and name that no fsync covered is dropped, or a part of it, or becomes zeros.

    Outcome: every write acknowledged at FSYNC is there; each shard has lost only a suffix of its log, and its stored
    offset, rows and content hash went back together.
    """
    for _ in range(CUTS_PER_TAIL):
        cut_power_once(start_run(), journal_library, source, tail)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("tail", Tail)
def test_many_power_cuts_keep_what_was_synced(
    start_run: Callable[..., FaultRun], journal_library: Path, source: random.Random, tail: Tail
) -> None:
    """Fault and outcome as in the short run, many times."""
    for _ in range(CUTS_PER_TAIL_LONG):
        cut_power_once(start_run(), journal_library, source, tail)


def test_power_cut_keeps_writes_synced_after_a_kill(
    start_run: Callable[..., FaultRun], journal_library: Path, source: random.Random
) -> None:
    """Fault: a kill first, so that the start replays and flushes logs whose files no fsync had covered, then the cut.

    Outcome: what was acknowledged at FSYNC in the first life or the second is there.
    """
    run = start_run()
    run.server.data.mkdir()
    journal = Journal.begin(run.folder / "journal", run.server.data)
    run.server.server.environment = journal.environment(journal_library)
    run.server.start()
    run.start_writer([FSYNC])
    run.random_pause(source, ACKNOWLEDGED_MAX)
    run.server.kill()
    run.server.start()
    run.random_pause(source, ACKNOWLEDGED_MAX)
    run.server.kill()
    run.stop_writer()
    journal.cut_power(source, Tail.NOTHING)
    run.server.server.environment = {}
    run.server.start()
    run.check([FSYNC], is_power_cut=True)
