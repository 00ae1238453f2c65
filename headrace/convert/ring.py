"""Rings from and to messages."""

from headrace.errors import InvalidArgument
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard
from protos.ring.v1 import ring_pb2 as pb

_UNKNOWN = -1


def ring_to_pb(ring: Ring) -> pb.Ring:
    """Message of a ring."""
    servers = sorted(ring.servers.values(), key=lambda server: server.server_id)
    places = {server.server_id: place for place, server in enumerate(servers)}
    return pb.Ring(
        ring_id=ring.ring_id,
        epoch=ring.epoch,
        replica_count=ring.replica_count,
        servers=map(server_to_pb, servers),
        shards=[
            pb.RingShard(
                replicas=[
                    pb.RingReplica(
                        server=places[replica.server_id],
                        phase=pb.ReplicaPhase.ValueType(replica.phase),
                        phase_epoch=replica.phase_epoch,
                    )
                    for replica in shard.replicas
                ],
                owners_epoch=shard.owners_epoch,
                target_servers=[places.get(server_id, _UNKNOWN) for server_id in shard.target],
            )
            for shard in ring.shards
        ],
    )


def ring_from_pb(message: pb.Ring) -> Ring:
    """Ring of a message; raises InvalidArgument where it refers to what is not in it."""
    servers = [server_from_pb(server) for server in message.servers]
    try:
        shards = tuple(_shard(shard, servers) for shard in message.shards)
    except (IndexError, ValueError) as error:
        raise InvalidArgument(f"the ring contradicts itself: {error}", reason="MALFORMED_RING", field="ring") from error
    by_id = {server.server_id: server for server in servers}
    return Ring(message.epoch, message.replica_count, by_id, shards, message.ring_id)


def server_to_pb(server: RingServer) -> pb.RingServer:
    """Message of a server."""
    return pb.RingServer(
        server_id=server.server_id,
        address=server.address,
        zone=server.zone,
        weight=server.weight,
        draining=server.is_draining,
    )


def server_from_pb(message: pb.RingServer) -> RingServer:
    """Server of a message."""
    return RingServer(message.server_id, message.address, message.zone, message.weight, message.draining)


def _shard(message: pb.RingShard, servers: list[RingServer]) -> RingShard:
    replicas = tuple(
        Replica(_at(servers, replica.server), Phase(replica.phase), replica.phase_epoch) for replica in message.replicas
    )
    target = tuple(_at(servers, place) for place in message.target_servers if place != _UNKNOWN)
    return RingShard(replicas, message.owners_epoch, target)


def _at(servers: list[RingServer], place: int) -> str:
    if place < 0:
        raise IndexError(f"there is no server {place}")
    return servers[place].server_id
