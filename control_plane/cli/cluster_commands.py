"""The commands over the ring of feature servers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from control_plane.cli.cluster.stream_metrics import StreamState, freshness_text, lag_text, stream_state
from control_plane.cli.output import Document, Format, print_document, print_table
from control_plane.cli.session import Session
from headrace.errors import NotFound
from headrace.ring.documents import ring_document
from headrace.ring.values import Phase, Ring, RingServer

_NONE = "-"


@dataclass(frozen=True, slots=True)
class Held:
    """One server with what it holds of the ring."""

    server: RingServer
    is_live: bool
    serving: int
    joining: int
    leaving: int

    @property
    def state(self) -> str:
        """What a person wants to know first."""
        if not self.is_live:
            return "silent"
        return "draining" if self.server.is_draining else "live"


def status(session: Session, *, shards: bool) -> int:
    """Prints the ring; 0 where every shard has all its copies on servers whose lease holds, else 1."""
    with session.ring() as client:
        ring, live = client.ring()
    short = short_of_copies(ring, live)
    streams = stream_states(session)
    if session.form is not Format.TABLE:
        print_document({**document(ring, live), "streams": _plain(streams)}, session.form, session.out)
    elif not ring.epoch:
        session.out.write("no ring is formed yet: servers started with --ring form it\n")
    else:
        _print_servers(session, ring, live, streams)
        _print_streams(session, ring, streams)
        if shards:
            _print_shards(session, ring)
        moving = sum(replica.phase is not Phase.SERVING for shard in ring.shards for replica in shard.replicas)
        session.out.write(
            f"epoch {ring.epoch}: {len(ring.shards)} shards of {ring.replica_count} copies, {moving} copies moving, "
            f"{len(short)} shards short of copies{': ' + _ranges(short) if short else ''}\n"
        )
    return 1 if short or not ring.epoch else 0


def drain(session: Session, server: str) -> int:
    """Moves every shard off a server, named by id, the start of it, or address."""
    with session.ring() as client:
        ring, _ = client.ring()
        found = [held for held in ring.servers.values() if held.address == server or held.server_id.startswith(server)]
        if len(found) != 1:
            raise NotFound(
                f"{server!r} is the id or address of {len(found)} servers of the ring; see 'headrace cluster status'",
                reason="NOT_IN_RING",
                metadata={"server": server},
            )
        after = client.drain(found[0].server_id)
    count = sum(1 for _ in after.replicas_of(found[0].server_id))
    session.out.write(f"draining {found[0].address}: {count} shards to move; 'headrace cluster status' follows it\n")
    return 0


def short_of_copies(ring: Ring, live: frozenset[str]) -> list[int]:
    """Shards that fewer live servers own than the ring is to have."""
    return [number for number, shard in enumerate(ring.shards) if len(set(shard.owners) & live) < ring.replica_count]


def servers_held(ring: Ring, live: frozenset[str]) -> list[Held]:
    """Servers in the order of their addresses."""
    held = []
    for server in sorted(ring.servers.values(), key=lambda server: server.address):
        phases = [replica.phase for _, replica in ring.replicas_of(server.server_id)]
        counts = [phases.count(phase) for phase in (Phase.SERVING, Phase.JOINING, Phase.LEAVING)]
        held.append(Held(server, server.server_id in live, *counts))
    return held


def document(ring: Ring, live: frozenset[str]) -> Document:
    """The ring for programs."""
    return {**ring_document(ring), "live": sorted(live), "short_of_copies": short_of_copies(ring, live)}


def stream_states(session: Session) -> Mapping[str, StreamState]:
    """By address, of those processes of the platform whose metrics are known and that read streams."""
    known = session.endpoints()
    places = {**known.ring, known.features: known.metrics_features, known.pipeline: known.metrics_pipeline}
    states = {address: stream_state(metrics) for address, metrics in places.items() if address and metrics}
    return {address: state for address, state in states.items() if state is not None}


def _plain(streams: Mapping[str, StreamState]) -> Document:
    return {address: asdict(state) for address, state in streams.items()}


def _print_streams(session: Session, ring: Ring, streams: Mapping[str, StreamState]) -> None:
    """Of those outside of the ring."""
    known = session.endpoints()
    members = {server.address for server in ring.servers.values()}
    names = {known.features: "stream server", known.pipeline: "pipeline worker"}
    rows = [
        (
            address,
            names.get(address, ""),
            f"{state.event_count:,}",
            state.dead_letter_count,
            lag_text(state),
            freshness_text(state),
        )
        for address, state in streams.items()
        if address not in members
    ]
    if rows:
        print_table(("outside", "what", "events", "dead letters", "lag", "freshness p99"), rows, session.out)


def _print_servers(session: Session, ring: Ring, live: frozenset[str], streams: Mapping[str, StreamState]) -> None:
    rows = [
        (
            held.server.address,
            held.server.server_id,
            held.server.zone or _NONE,
            held.server.weight,
            held.state,
            held.serving,
            held.joining,
            held.leaving,
            lag_text(streams.get(held.server.address)),
            freshness_text(streams.get(held.server.address)),
        )
        for held in servers_held(ring, live)
    ]
    heads = ("server", "id", "zone", "weight", "state", "serving", "joining", "leaving", "lag", "freshness p99")
    print_table(heads, rows, session.out)


def _print_shards(session: Session, ring: Ring) -> None:
    def names(ids: Sequence[str]) -> str:
        return " ".join(ring.servers[held].address if held in ring.servers else held for held in ids) or _NONE

    rows = [
        (
            number,
            shard.owners_epoch,
            names(shard.owners),
            names([replica.server_id for replica in shard.replicas if replica.phase is Phase.JOINING]),
            names([replica.server_id for replica in shard.replicas if replica.phase is Phase.LEAVING]),
        )
        for number, shard in enumerate(ring.shards)
    ]
    print_table(("shard", "epoch", "owners", "joining", "leaving"), rows, session.out)


def _ranges(numbers: Sequence[int]) -> str:
    parts: list[str] = []
    start = numbers[0]
    for at, number in enumerate(numbers):
        if at + 1 == len(numbers) or numbers[at + 1] != number + 1:
            parts.append(str(start) if start == number else f"{start}-{number}")
            start = numbers[at + 1] if at + 1 < len(numbers) else number
    return ", ".join(parts)
