"""The copies of shards that a server has: what the ring asks of them, and how far they are."""

import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from feature_server.ring.held_ring import HeldRing
from feature_server.ring.log import CopyStore, LogRange, LogRows
from headrace.errors import DataLoss, HeadraceError, Unavailable
from headrace.ring.values import Phase, Replica

PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Copy the rows of a shard from an owner into the store; answered when they are in it and their digest is right."""

    shard: int
    source_id: str


@dataclass(frozen=True, slots=True)
class AskLog:
    """Tell what the log of a shard holds now; answered by a LogRange, or None where its copies share no log."""

    shard: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Come back after a while."""

    delay_s: float


Step: TypeAlias = TakeSnapshot | AskLog | Wait
Answer: TypeAlias = LogRange | HeadraceError | None
"""None where a step tells nothing more; an error where it failed."""
Join: TypeAlias = Generator[Step, Answer, None]


class Copies:
    """Copies by shard number. A driver runs the joins, feeds the log to `follow`, and sends `ready` and `damaged`.

    One thread adopts and joins, another may follow, and any may ask whether a copy serves.
    """

    def __init__(self, held: HeldRing, stores: Sequence[CopyStore]) -> None:
        self._held = held
        self._stores = stores
        self._lock = threading.RLock()  # between a look at a store and what follows from it
        self._running: set[int] = set()  # shards of which a join runs; the next begins when it has ended
        self._filled: set[int] = set()  # of these, those that the log may be applied to
        self._tries: dict[int, int] = {}
        self._joined: dict[int, int] = {}  # shard to the phase epoch of the join that ended well

    def check_read(self, shards: Iterable[int], epoch: int) -> None:
        """Raises WrongEpoch where a request was routed by other owners, DataLoss where the copy is not whole."""
        numbers = list(shards)
        self._held.check(numbers, epoch)
        for shard in numbers:
            if not self._stores[shard].is_complete:
                raise DataLoss(
                    f"the copy of shard {shard} on this server is not whole; ask another owner",
                    reason="COPY_NOT_WHOLE",
                    metadata={"shard": str(shard)},
                )

    def is_whole(self, shard: int) -> bool:
        """Whether the copy of a shard has all that it was told to have."""
        return self._stores[shard].is_complete

    def adopt(self) -> list[Join]:
        """Follows the ring that is held now: drops what is not ours, and gives the joins that have to be run.

        To be called when a ring was accepted, when a join has ended, and before each heartbeat: a copy that was ready
        may have ceased to be whole.
        """
        with self._lock:
            return self._adopted()

    def _adopted(self) -> list[Join]:
        begun: list[Join] = []
        failure: HeadraceError | None = None
        ring = self._held.ring
        for shard, store in enumerate(self._stores):
            replica = ring.shards[shard].of(self._held.server_id) if shard < len(ring.shards) else None
            if shard in self._running:
                continue
            if replica is None:
                self._joined.pop(shard, None)
                try:
                    if ring.epoch:
                        store.drop()
                except HeadraceError as error:
                    failure = error  # its disk holds up no other shard
            elif replica.phase is Phase.JOINING and not self._is_ready(shard, replica):
                begun.append(self._join(shard, replica))
        if failure is not None and not begun:
            raise failure
        return begun

    def followed(self) -> list[int]:
        """Shards whose log is to be read, each from the offset of its store."""
        ring = self._held.ring
        return [
            shard
            for shard, _ in ring.replicas_of(self._held.server_id)
            if self._stores[shard].is_complete or shard in self._filled
        ]

    def next_offset(self, shard: int) -> int:
        """First offset of the log that a copy does not have."""
        return self._stores[shard].next_offset

    def follow(self, shard: int, log_rows: LogRows) -> None:
        """Takes the next rows of the log, read from the offset of the store. What was read from another place, as a
        late answer is, changes nothing; where the log has lost what the store needs, the copy is not whole any more.
        """
        with self._lock:
            self._follow(shard, log_rows)

    def _follow(self, shard: int, log_rows: LogRows) -> None:
        store = self._stores[shard]
        if shard not in self.followed() or log_rows.first_offset < store.next_offset:
            return
        if log_rows.first_offset > store.next_offset:
            self._filled.discard(shard)
            store.spoil()  # it is reported, and copied anew from an owner that is whole; until then its rows stay
            raise DataLoss(
                f"the log of shard {shard} begins at {log_rows.first_offset}, and the copy needs {store.next_offset}",
                reason="LOG_GAP",
                metadata={"shard": str(shard), "first_offset": str(log_rows.first_offset)},
            )
        if log_rows.next_offset > log_rows.first_offset:
            store.apply(log_rows)

    def ready(self) -> list[tuple[int, int]]:
        """(shard, phase epoch) of joining copies that may serve."""
        return [
            (shard, replica.phase_epoch)
            for shard, replica in self._held.ring.replicas_of(self._held.server_id)
            if replica.phase is Phase.JOINING and self._is_ready(shard, replica)
        ]

    def damaged(self) -> list[tuple[int, int]]:
        """(shard, phase epoch) of serving copies that are not whole."""
        return [
            (shard, replica.phase_epoch)
            for shard, replica in self._held.ring.replicas_of(self._held.server_id)
            if replica.phase is Phase.SERVING and not self._stores[shard].is_complete
        ]

    def _join(self, shard: int, replica: Replica) -> Join:
        """Steps from nothing, or from what is there, to a copy that has all that was logged when it asked."""
        pause_s = PAUSE_FIRST_S
        self._running.add(shard)
        try:
            while self._is_wanted(shard, replica):
                try:
                    yield from self._fill(shard, replica)
                    yield from self._catch_up(shard, replica)
                except HeadraceError:
                    yield Wait(pause_s)
                    pause_s = min(2 * pause_s, PAUSE_MAX_S)
                    continue
                return
        finally:
            self._filled.discard(shard)
            self._running.discard(shard)

    def _fill(self, shard: int, replica: Replica) -> Join:
        store = self._stores[shard]
        log = _log_range((yield AskLog(shard)))
        if store.is_complete and log is not None and log.first_offset <= store.next_offset:
            return  # a copy of before, which the log still reaches
        sources = [owner for owner in self._held.ring.shards[shard].owners if owner != self._held.server_id]
        if sources:
            # Another one at each try; which is first differs between shards.
            self._tries[shard] = self._tries.get(shard, shard) + 1
            _raise_error((yield TakeSnapshot(shard, sources[self._tries[shard] % len(sources)])))
        elif log is not None and log.first_offset > 0:
            raise Unavailable(
                f"nobody serves shard {shard}, and its log begins at {log.first_offset}: bring an owner back",
                reason="NO_SOURCE",
                metadata={"shard": str(shard)},
            )
        else:
            with self._lock:
                if self._is_wanted(shard, replica):
                    store.begin()

    def _catch_up(self, shard: int, replica: Replica) -> Join:
        store = self._stores[shard]
        self._filled.add(shard)
        while isinstance(answer := (yield AskLog(shard)), HeadraceError):
            if not self._is_wanted(shard, replica):
                return
            yield Wait(PAUSE_FIRST_S)  # what was copied stays: only the question is asked again
        log = _log_range(answer)
        while self._is_wanted(shard, replica):
            if shard not in self._filled:
                raise Unavailable(f"the log left shard {shard} behind", reason="LOG_GAP")
            with self._lock:
                if shard in self._filled and (log is None or store.next_offset >= log.next_offset):
                    store.complete()
                    self._joined[shard] = replica.phase_epoch
                    return
            yield Wait(PAUSE_FIRST_S)

    def _is_ready(self, shard: int, replica: Replica) -> bool:
        return self._joined.get(shard) == replica.phase_epoch and self._stores[shard].is_complete

    def _is_wanted(self, shard: int, replica: Replica) -> bool:
        ring = self._held.ring
        return shard < len(ring.shards) and ring.shards[shard].of(self._held.server_id) == replica


def _log_range(answer: Answer) -> LogRange | None:
    if isinstance(answer, HeadraceError):
        raise answer
    return answer


def _raise_error(answer: Answer) -> None:
    if isinstance(answer, HeadraceError):
        raise answer
