"""All shards of a server, with the threads that commit memory writes and bring shards back."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from feature_server.domain.shard import Shard, ShardState, ShardStatus
from headrace.serving.logging import EventLog

COMMIT_INTERVAL_S: Final = 0.005  # how long a write acknowledged in memory may wait for its commit
RESUME_INTERVAL_S: Final = 1.0
STOP_WAIT_S: Final = 30.0
OPEN_THREADS: Final = 4  # opening replays logs: mostly disk and C


class ShardSet:
    """Shards by number."""

    def __init__(self, shards: Sequence[Shard], log: EventLog) -> None:
        self.shards = shards
        self._log = log
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, number: int) -> Shard:
        return self.shards[number]

    def open(self) -> None:
        """Opens every shard. One that does not open is quarantined; the others serve."""
        with ThreadPoolExecutor(OPEN_THREADS) as pool:
            list(pool.map(Shard.open, self.shards))

    def start(self) -> None:
        """Starts the threads that commit memory writes and bring shards back."""
        work = (("commit", self._commit_queued, COMMIT_INTERVAL_S), ("resume", self._resume, RESUME_INTERVAL_S))
        for name, step, interval_s in work:
            thread = threading.Thread(target=self._repeat, args=(step, interval_s), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stops the threads, commits what is queued and closes every shard."""
        self._stop.set()
        for thread in self._threads:
            thread.join(STOP_WAIT_S)
        for shard in self.shards:
            shard.close()

    def statuses(self) -> list[ShardStatus]:
        """Status of every shard."""
        return [shard.status() for shard in self.shards]

    @property
    def highest_id(self) -> int:
        """Highest registry id that any shard has seen."""
        return max(shard.highest_id for shard in self.shards)

    def note_highest_id(self, highest_id: int) -> None:
        """Lets every shard remember a registry id."""
        for shard in self.shards:
            shard.note_highest_id(highest_id)

    def _commit_queued(self) -> None:
        for shard in self.shards:
            if shard.has_queued and shard.state is ShardState.SERVING:
                shard.commit_queued()

    def _resume(self) -> None:
        for shard in self.shards:
            if shard.state is ShardState.READ_ONLY:
                shard.resume()

    def _repeat(self, step: Callable[[], None], interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                self._log.failure("shard_thread_failed", error, thread=threading.current_thread().name)
