"""One fault run: a feature server, its load, and the checks over both."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.cluster.calls import Caller, View, shard_of_key
from tests.cluster.checker import (
    ShardPosition,
    StoredRow,
    Violations,
    check_acknowledged,
    check_failures,
    check_monotonic,
    check_recovery,
    check_state,
    check_suffix_lost,
    check_tokens,
    check_written,
    require,
)
from tests.cluster.history import FSYNC, LOG, History, Read, load
from tests.cluster.processes import FeatureServer, ServerProcess, wait_for

RECOVERY_BOUND_S: Final = 20.0  # on two cores shared with another test process; alone it is a few seconds
PROGRESS_LIMIT_S: Final = 60.0
KEY_COUNT: Final = 1_000


@dataclass(slots=True)
class FaultRun:
    """A server on its own folder; writers come and go, and the history gathers what all of them saw."""

    server: FeatureServer
    folder: Path
    view: View
    seed: int
    key_count: int = KEY_COUNT
    writers: list[ServerProcess] = field(default_factory=list)

    def start_writer(
        self,
        durabilities: Sequence[str] = (LOG, FSYNC),
        *,
        payload_bytes: int = 200,
        rows_per_request: int = 20,
        writer_count: int = 2,
    ) -> None:
        """Starts a load; one at a time, as each goes on with the next write numbers."""
        number = len(self.writers)
        arguments = ["--address", self.server.address, "--history", str(self.folder / f"history{number}")]
        arguments += ["--life-file", str(self.server.life_file), "--seed", str(self.seed)]
        arguments += ["--durabilities", ",".join(durabilities), "--key-count", str(self.key_count)]
        arguments += ["--payload-bytes", str(payload_bytes), "--rows-per-request", str(rows_per_request)]
        arguments += ["--writer-count", str(writer_count), "--first-seq", str(1 + number * SEQS_PER_WRITER)]
        writer = ServerProcess("tests.cluster.writer", arguments, self.folder / f"writer{number}.log")
        writer.launch()
        self.writers.append(writer)

    def stop_writer(self) -> None:
        """Lets the load end after its current requests."""
        code = self.writers[-1].stop()
        assert code == 0, f"the load ended with {code}\n{self.writers[-1].tail()}"

    def adopt(self, other: "FaultRun") -> None:
        """Takes a copy of the data and the histories of a run that has ended, so that it can be damaged here."""
        shutil.copytree(other.server.data, self.server.data, symlinks=True)
        for path in other._histories():
            shutil.copy(path, self.folder / f"history-of-{other.folder.name}-{path.name.removeprefix('history')}")

    def acknowledged_count(self) -> int:
        """Requests acknowledged so far."""
        return sum(path.read_bytes().count(b'"kind":"acknowledged"') for path in self._histories())

    def wait_acknowledged(self, more: int, limit_s: float = PROGRESS_LIMIT_S) -> None:
        """Waits until so many more requests were acknowledged."""
        target = self.acknowledged_count() + more
        wait_for(lambda: self.acknowledged_count() >= target, limit_s, self.describe)

    def history(self) -> History:
        """What was recorded so far."""
        return load([*self._histories(), self.folder / "marks"])

    def read_all(self) -> tuple[Read, frozenset[int]]:
        """Every key, now, and the keys that the server says it cannot read."""
        with Caller(self.server.address) as caller:
            rows, unavailable = caller.read(range(self.key_count))
        return Read("final", self.server.life, rows), unavailable

    def state(self) -> tuple[list[StoredRow], list[ShardPosition]]:
        """Stored rows and shard positions; only when no load runs."""
        with Caller(self.server.address) as caller:
            shards = caller.shards()
            return caller.stored_rows(self.view, range(self.key_count), len(shards)), shards

    def check_present(self, durabilities: Sequence[str] = (LOG, FSYNC)) -> None:
        """Promises (a) and (c), while the load may go on: history first, then the read."""
        history = self.history()
        read, unavailable = self.read_all()
        assert not unavailable, f"{len(unavailable)} keys are unavailable"
        final = {seen.key: seen for seen in read.rows}
        self._require(check_acknowledged(history, final, durabilities), check_written(self.history(), [read]))

    def check(
        self,
        durabilities: Sequence[str] = (LOG, FSYNC),
        *,
        is_power_cut: bool = False,
        failures: Sequence[str] = ("UNAVAILABLE",),
    ) -> History:
        """Every promise, after the load has stopped."""
        history = self.history()
        read, unavailable = self.read_all()
        assert not unavailable, f"{len(unavailable)} keys are unavailable"
        rows, shards = self.state()
        assert {shard.state for shard in shards} == {"SERVING"}, shards
        suffix: Violations = []
        if is_power_cut:
            suffix = check_suffix_lost(history, rows, shards, lambda key: shard_of_key(key, len(shards)))
        self._require(
            check_acknowledged(history, {seen.key: seen for seen in read.rows}, durabilities),
            check_written(history, [*history.reads, read]),
            check_monotonic([*history.reads], over_restarts=not is_power_cut),
            check_state(history, rows, shards),
            check_tokens(history, shards, durabilities),
            suffix,
            check_failures(history, failures),
            check_recovery(history, RECOVERY_BOUND_S),
        )
        return history

    def random_pause(self, source: random.Random, most: int) -> None:
        """Waits for a random number of acknowledgements, so that a kill comes at any point of a request."""
        self.wait_acknowledged(source.randint(1, most))

    def end(self) -> None:
        """Ends every process of the run."""
        for process in [*self.writers, self.server.server]:
            if process.process is not None and process.exit_code() is None:
                process.kill()

    def describe(self) -> str:
        """Ends of the logs."""
        return "\n".join(process.tail() for process in [*self.writers, self.server.server])

    def _histories(self) -> list[Path]:
        return sorted(self.folder.glob("history*"))

    def _require(self, *violations: Violations) -> None:
        require([violation for found in violations for violation in found], self.seed)


SEQS_PER_WRITER: Final = 200_000
