"""Rings as JSON documents, for stores and for printing."""

from typing import Any, Final

from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard

LAYOUT: Final = 1


def ring_document(ring: Ring) -> dict[str, Any]:  # Any: JSON
    """Document of a ring."""
    return {
        "layout": LAYOUT,
        "ring_id": ring.ring_id,
        "epoch": ring.epoch,
        "replica_count": ring.replica_count,
        "servers": [
            {
                "server_id": server.server_id,
                "address": server.address,
                "zone": server.zone,
                "weight": server.weight,
                "is_draining": server.is_draining,
            }
            for server in sorted(ring.servers.values(), key=lambda server: server.server_id)
        ],
        "shards": [
            {
                "replicas": [
                    [replica.server_id, int(replica.phase), replica.phase_epoch] for replica in shard.replicas
                ],
                "owners_epoch": shard.owners_epoch,
                "target": list(shard.target),
            }
            for shard in ring.shards
        ],
    }


def ring_of_document(document: dict[str, Any]) -> Ring:  # Any: JSON
    """Ring of a document. Raises ValueError, KeyError or TypeError where it is none of this layout."""
    if document["layout"] != LAYOUT:
        raise ValueError(f"layout {document['layout']} of a ring is unknown; this release reads {LAYOUT}")
    servers = [RingServer(**fields) for fields in document["servers"]]
    return Ring(
        document["epoch"],
        document["replica_count"],
        {server.server_id: server for server in servers},
        tuple(
            RingShard(
                tuple(Replica(server_id, Phase(phase), epoch) for server_id, phase, epoch in shard["replicas"]),
                shard["owners_epoch"],
                tuple(shard["target"]),
            )
            for shard in document["shards"]
        ),
        document["ring_id"],
    )
