"""A server's place in the ring: joins it, sends heartbeats, follows its epochs, and runs the joins of copies."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from random import Random
from typing import Final, NamedTuple, Protocol

from feature_server.ring.copies import Answer, AskLog, Copies, Join, TakeSnapshot, Wait
from feature_server.ring.held_ring import HeldRing
from headrace.errors import HeadraceError, InternalError, NotFound
from headrace.ring.values import Ring, RingServer
from headrace.serving.logging import EventLog

STEP_S: Final = 0.1
BEATS_PER_LEASE: Final = 3
BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
JITTER: Final = 0.2
STOP_WAIT_S: Final = 10.0


class Renewed(NamedTuple):
    """What the control plane answered: how long the lease lasts, and a ring where there is a newer one."""

    lease_s: float
    ring: Ring | None


class Placement(Protocol):
    """The control plane as a server sees it. Raises errors of headrace.errors."""

    def join(self, server: RingServer, shard_count: int) -> Renewed:
        """Takes the server in."""

    def renew(
        self, server_id: str, held_epoch: int, ready: list[tuple[int, int]], damaged: list[tuple[int, int]]
    ) -> Renewed:
        """One heartbeat; NotFound where the server has to join."""


class CopySource(Protocol):
    """Where copies come from. Raises errors of headrace.errors."""

    def perform(self, step: AskLog | TakeSnapshot) -> Answer:
        """Does a step of a join to its end; snapshots from threads of their own."""

    def close(self) -> None:
        """Breaks off what is being performed."""


class Membership:
    """Heartbeats and joins on one thread; `wake` lets it look at once."""

    def __init__(
        self,
        server: RingServer,
        shard_count: int,
        *,
        held: HeldRing,
        copies: Copies,
        placement: Placement,
        source: CopySource,
        workers: Executor,
        clock_s: Callable[[], float],
        random: Random,
        log: EventLog,
    ) -> None:
        self.on_ring: Callable[[Ring], None] = lambda ring: None
        self._server = server
        self._shard_count = shard_count
        self._held = held
        self._copies = copies
        self._placement = placement
        self._source = source
        self._workers = workers
        self._copying: list[tuple[Future[Answer], Join]] = []
        self._clock_s = clock_s
        self._random = random
        self._log = log
        self._has_joined = False
        self._beat_s = 0.0  # when the next heartbeat is due
        self._backoff_s = BACKOFF_MIN_S
        self._said: tuple[int, list[tuple[int, int]], list[tuple[int, int]]] | None = None
        self._waiting: list[tuple[float, Join]] = []
        self._adopted_epoch = -1
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ring", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def close(self) -> None:
        """Ends; the lease runs out by itself, and nothing moves before that."""
        self._stop.set()
        self._wake.set()
        self._source.close()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._thread.join(STOP_WAIT_S)

    def take(self, ring: Ring) -> None:
        """A ring that came from somewhere; from any thread."""
        try:
            is_newer = self._held.accept(ring)
        except HeadraceError as error:
            self._log.error("ring_refused", reason=error.reason, detail=error.message)
            return
        if is_newer:
            self._log.info("ring_held", epoch=ring.epoch, server_count=len(ring.servers))
            self.on_ring(ring)
            self._wake.set()

    def hurry(self) -> None:
        """Asks for the newest ring at once; from any thread."""
        self._said = None
        self._wake.set()

    def step(self) -> None:
        """Everything that is due now."""
        self._resume_joins()
        if self._held.ring.epoch != self._adopted_epoch:
            self._adopt()
        if self._clock_s() >= self._beat_s or self._has_news():
            self._adopt()
            self._beat()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                self._log.failure("ring_step_failed", error)
            self._wake.wait(STEP_S)
            self._wake.clear()

    def _beat(self) -> None:
        try:
            if self._has_joined:
                said = self._news()
                renewed = self._placement.renew(self._server.server_id, *said)
                self._said = said
            else:
                renewed = self._placement.join(self._server, self._shard_count)
                self._has_joined = True
                self._said = None
        except NotFound:
            self._has_joined = False
            self._later()
        except HeadraceError as error:
            self._log.warning("placement_unreachable", reason=error.reason, detail=error.message)
            self._later()
        else:
            self._backoff_s = BACKOFF_MIN_S
            self._beat_s = self._clock_s() + renewed.lease_s / BEATS_PER_LEASE
            if renewed.ring is not None:
                self.take(renewed.ring)

    def _later(self) -> None:
        self._said = self._news()  # not sent, and not to be sent before its time
        self._beat_s = self._clock_s() + self._backoff_s * self._random.uniform(1 - JITTER, 1 + JITTER)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    def _news(self) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
        return self._held.ring.epoch, self._copies.ready(), self._copies.damaged()

    def _has_news(self) -> bool:
        return self._has_joined and self._said != self._news()

    # Joins.

    def _adopt(self) -> None:
        self._adopted_epoch = self._held.ring.epoch
        try:
            begun = self._copies.adopt()
        except HeadraceError as error:
            self._log.error("copies_not_adopted", reason=error.reason, detail=error.message)
            return
        for join in begun:
            self._resume(join, None)

    def _resume_joins(self) -> None:
        now_s = self._clock_s()
        due = [join for time_s, join in self._waiting if time_s <= now_s]
        self._waiting = [(time_s, join) for time_s, join in self._waiting if time_s > now_s]
        for join in due:
            self._resume(join, None)
        copied = [(future, join) for future, join in self._copying if future.done()]
        self._copying = [(future, join) for future, join in self._copying if not future.done()]
        for future, join in copied:
            self._resume(join, future.result())

    def _resume(self, join: Join, answer: Answer) -> None:
        try:
            step = join.send(answer)
            while isinstance(step, AskLog):
                step = join.send(self._performed(step))
        except StopIteration:
            self._adopted_epoch = -1  # what the ring asks of that shard next has waited for this end
            return
        if isinstance(step, Wait):
            self._waiting.append((self._clock_s() + step.delay_s, join))
        elif not self._stop.is_set():
            # Minutes, for a large shard: heartbeats go on beside it.
            self._copying.append((self._workers.submit(self._performed, step), join))

    def _performed(self, step: AskLog | TakeSnapshot) -> Answer:
        try:
            return self._source.perform(step)
        except HeadraceError as error:
            self._log.warning("copy_waits", shard=step.shard, reason=error.reason, detail=error.message)
            return error
        except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
            self._log.failure("copy_failed", error, shard=step.shard)
            return InternalError(f"the copy of shard {step.shard} failed inside this server", reason="INTERNAL")
