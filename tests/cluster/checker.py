"""Judge of a fault run: each function returns the violations of one promise, none when it was kept."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import xxhash

from tests.cluster.history import FSYNC, LOG, History, Read, Seen, Write

VIOLATIONS_SHOWN_MAX: Final = 20  # a broken run breaks thousands of keys the same way
HASH_MODULUS: Final = 1 << 64

Violations = list[str]


def hash_of_row(storage_key: bytes, row: bytes) -> int:
    """Share of one row in a content hash, by the reference library."""
    return int(xxhash.xxh3_64_intdigest(storage_key + row))


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as the shard holds it: storage key, bytes, and the order fields of its header."""

    shard: int
    storage_key: bytes
    row: bytes
    key: int
    seq: int
    event_us: int
    write_us: int
    source_id: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class ShardPosition:
    """What a server says of one shard."""

    shard: int
    epoch: int
    offset: int
    content_hash: bytes
    state: str
    detail: str


def check_acknowledged(
    history: History,
    final: Mapping[int, Seen],
    durabilities: Sequence[str] = (LOG, FSYNC),
    unreadable: Collection[int] = (),
) -> Violations:
    """Promise (a): what was acknowledged at these durabilities is there, or a later write of the same key is.

    Keys that the server said it cannot read now are left out.
    """
    newest: dict[int, Write] = {}
    for write in history.promised(durabilities):
        held = newest.get(write.key)
        if held is None or write.event_us > held.event_us:
            newest[write.key] = write
    violations = []
    for key, write in sorted(newest.items()):
        if key in unreadable:
            continue
        seen = final.get(key)
        if seen is None or seen.seq is None:
            violations.append(f"key {key}: write {write.seq} was acknowledged and nothing is there")
        elif seen.event_us < write.event_us:
            violations.append(f"key {key}: write {write.seq} was acknowledged and the older {seen.seq} is there")
    return violations


def check_written(history: History, reads: Iterable[Read]) -> Violations:
    """Promise (c): every value read is one write, whole, with that write's event time."""
    written = {(write.key, write.seq): write.event_us for write in history.writes()}
    violations = []
    for read in reads:
        for seen in read.rows:
            if seen.seq is None:
                continue
            event_us = written.get((seen.key, seen.seq))
            if event_us is None:
                violations.append(f"key {seen.key}: value {seen.seq} was read by {read.reader} and never written")
            elif event_us != seen.event_us:
                violations.append(f"key {seen.key}: value {seen.seq} was read with event time {seen.event_us}")
    return violations


def check_monotonic(reads: Iterable[Read], *, over_restarts: bool) -> Violations:
    """Promise (b): per reader and key, no read is older than one before it.

    Over restarts only where everything readable was also kept: after a kill, not after a power cut.
    """
    newest: dict[tuple[str, int, int], int] = {}
    violations = []
    for read in reads:
        life = 0 if over_restarts else read.life
        for seen in read.rows:
            place = (read.reader, life, seen.key)
            event_us = -1 if seen.seq is None else seen.event_us
            if event_us < newest.get(place, -1):
                violations.append(f"key {seen.key}: {read.reader} went back from {newest[place]} to {event_us}")
            newest[place] = max(event_us, newest.get(place, -1))
    return violations


def check_state(
    history: History,
    rows: Sequence[StoredRow],
    shards: Sequence[ShardPosition],
    hash_row: Callable[[bytes, bytes], int] = hash_of_row,
) -> Violations:
    """Promise (d): each shard holds the fold of its log up to its stored offset, and its content hash says so."""
    by_shard: defaultdict[int, list[StoredRow]] = defaultdict(list)
    for row in rows:
        by_shard[row.shard].append(row)
    violations = []
    for shard in shards:
        held = by_shard[shard.shard]
        total = sum(hash_row(row.storage_key, row.row) for row in held) % HASH_MODULUS
        if total.to_bytes(8, "little") != shard.content_hash:
            violations.append(f"shard {shard.shard}: content hash is not that of the {len(held)} rows found")
        violations += [
            f"shard {shard.shard}: row of key {row.key} has offset {row.offset} past the stored {shard.offset}"
            for row in held
            if row.offset > shard.offset
        ]
        violations += _doubled(shard.shard, held)
    return violations + _misplaced(history, rows)


def check_tokens(
    history: History, shards: Sequence[ShardPosition], durabilities: Sequence[str] = (LOG, FSYNC)
) -> Violations:
    """Part of promise (d): no acknowledged position lies past the stored offset, and none was given twice.

    Offsets never start again with a new epoch, so a token of any epoch is compared.
    """
    positions = {shard.shard: shard for shard in shards}
    given: dict[tuple[int, int, int], str] = {}
    violations = []
    for request, tokens in history.acknowledged.items():
        if history.requests[request].durability not in durabilities:
            continue
        for token in tokens:
            shard = positions.get(token.shard)
            if shard is None:
                violations.append(f"shard {token.shard} of an acknowledgement is not listed")
            elif token.offset > shard.offset:
                violations.append(f"shard {token.shard}: acknowledged {token.offset}, stored only {shard.offset}")
            place = (token.shard, token.epoch, token.offset)
            if given.setdefault(place, request) != request:
                violations.append(f"shard {token.shard}: offset {token.offset} was acknowledged to two requests")
    return violations


def check_suffix_lost(
    history: History,
    rows: Sequence[StoredRow],
    shards: Sequence[ShardPosition],
    shard_of: Callable[[int], int],
) -> Violations:
    """After a power cut: a shard lost only a suffix. No acknowledged write up to its stored offset is missing."""
    stored = {row.key: row for row in rows}
    positions = {shard.shard: shard.offset for shard in shards}
    violations = []
    for name, tokens in history.acknowledged.items():
        kept = {token.shard for token in tokens if token.offset <= positions.get(token.shard, -1)}
        for write in history.requests[name].writes:
            row = stored.get(write.key)
            if shard_of(write.key) in kept and (row is None or row.event_us < write.event_us):
                found = "nothing" if row is None else f"the older {row.seq}"
                violations.append(f"key {write.key}: write {write.seq} lies before the stored offset, {found} is there")
    return violations


def check_failures(history: History, allowed: Collection[str]) -> Violations:
    """Callers saw no other error than these codes."""
    return [f"request {request} failed with {code}" for request, code in history.failures if code not in allowed]


def check_recovery(history: History, bound_s: float) -> Violations:
    """Promise (e): from each start to ready within the bound, unless it was killed on the way."""
    violations = []
    for before, after in pairwise(mark for mark in history.marks if mark.name in ("start", "ready", "kill")):
        if (before.name, after.name) == ("start", "ready"):
            took_s = (after.at_ns - before.at_ns) / 1e9
            if took_s > bound_s:
                violations.append(f"ready {took_s:.1f} s after a start; the bound is {bound_s} s")
        elif (before.name, after.name) == ("start", "start"):
            violations.append("a start was never ready")
    return violations


def require(violations: Violations, seed: int) -> None:
    """Fails with the first violations and the seed that repeats the run."""
    if violations:
        shown = "\n  ".join(violations[:VIOLATIONS_SHOWN_MAX])
        raise AssertionError(f"{len(violations)} violations, run again with --seed {seed}:\n  {shown}")


def _doubled(shard: int, rows: Sequence[StoredRow]) -> Violations:
    offsets: dict[int, int] = {}
    violations = []
    for row in rows:
        other = offsets.setdefault(row.offset, row.key)
        if other != row.key:
            violations.append(f"shard {shard}: keys {other} and {row.key} both hold offset {row.offset}")
    return violations


def _misplaced(history: History, rows: Sequence[StoredRow]) -> Violations:
    """A stored row of an acknowledged request carries an offset that lies within what its token covers."""
    request_of = {write.seq: request for request in history.requests.values() for write in request.writes}
    violations = []
    for row in rows:
        request = request_of.get(row.seq)
        if request is None:
            violations.append(f"key {row.key}: stored value {row.seq} was never written")
            continue
        for token in history.acknowledged.get(request.request, ()):
            first = token.offset - len(request.writes)
            if token.shard == row.shard and not first < row.offset <= token.offset:
                violations.append(f"key {row.key}: offset {row.offset} lies outside its token {token.offset}")
    return violations
