"""`headrace capacity plan`: what a load needs, line by line, with the figure that each line rests on."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from control_plane.cli.output import Document, Format, print_document, print_table
from control_plane.cli.session import Session
from control_plane.domain.capacity import plan as plans
from control_plane.domain.capacity.figures import Results
from control_plane.domain.capacity.plan import Load, Node, Plan
from control_plane.domain.capacity.ring_check import RING_SERVERS_MAX, RingCheck, check_ring
from headrace.errors import InvalidArgument

RESULTS: Final = Path(__file__).resolve().parents[2] / "loadtest" / "results"
GIGABIT: Final = 1e9
_SIZES: Final = {
    "": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15,
    "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30, "TIB": 2.0**40, "PIB": 2.0**50,
}  # fmt: skip
_UNITS: Final[Mapping[str, tuple[float, str]]] = {
    "cores": (1.0, "cores"),
    "memory": (1e12, "TB"),
    "disk": (1e12, "TB"),
    "object storage": (1e15, "PB"),
    "network": (GIGABIT, "Gbit/s"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Load and node as a person types them."""

    events_per_s: float
    feature_writes_per_s: float
    requests_per_s: float
    features: int
    features_per_row: int
    history: str
    online: str
    replicas: int
    cores: int
    memory: str
    disk: str
    network_gbits: float

    @property
    def load(self) -> Load:
        """What is asked of the deployment."""
        return Load(
            self.events_per_s, self.feature_writes_per_s, self.requests_per_s, self.features, self.features_per_row,
            size_of(self.history, "--history"), size_of(self.online, "--online"),
        )  # fmt: skip

    @property
    def node(self) -> Node:
        """One machine."""
        memory, disk = size_of(self.memory, "--memory"), size_of(self.disk, "--disk")
        return Node(self.cores, memory, disk, self.network_gbits * GIGABIT, self.replicas)


def plan(session: Session, asked: Asked, results: Path | None) -> None:
    """Prints the plan."""
    load, node = asked.load, asked.node
    made = plans.plan(load, node, Results(results or RESULTS).measured())
    ring = check_ring(made.node_count, node.replicas)
    largest = check_ring(RING_SERVERS_MAX, node.replicas)
    if session.form is not Format.TABLE:
        print_document(document(load, node, made, ring, largest), session.form, session.out)
        return
    rows = [
        (need.resource, need.what, *amount_of(need.resource, need.amount), need.how, need.origin) for need in made.needs
    ]
    print_table(("resource", "for", "amount", "unit", "how", "recorded figure"), rows, session.out)
    session.out.write("\n")
    shares = {"cores": node.busy_share, "network": node.busy_share}
    nodes = [
        (name, *amount_of(name, made.total(name)), f"{shares.get(name, node.full_share):.0%}", f"{count:,}")
        for name, count in made.nodes_by_resource.items()
    ]
    print_table(("resource", "in all", "unit", "in use of a node", "nodes"), nodes, session.out)
    session.out.write(_summary(made, ring, largest))


def document(load: Load, node: Node, made: Plan, ring: RingCheck, largest: RingCheck) -> Document:
    """The plan for programs."""
    return {
        "load": asdict(load),
        "node": asdict(node),
        "needs": [asdict(need) for need in made.needs],
        "nodes_by_resource": made.nodes_by_resource,
        "binding": made.binding,
        "row_bytes": made.row_bytes,
        "nodes": ring.node_count,
        "ring": _simulated(ring),
        "largest_ring": _simulated(largest),
    }


def _simulated(ring: RingCheck) -> Document:
    return {
        "rings": ring.ring_count,
        "simulated_servers": ring.simulated_servers,
        "shards": ring.shards,
        "load_factor_max": ring.balance.load_factor_max,
        "moved_to_fair_mean": ring.balance.moved_to_fair_mean,
        "moved_to_fair_max": ring.balance.moved_to_fair_max,
    }


def _summary(made: Plan, ring: RingCheck, largest: RingCheck) -> str:
    rings = f"{ring.ring_count} rings" if ring.ring_count > 1 else "one ring"
    return (
        f"\n{made.binding} asks for {made.node_count:,} nodes, evenly loaded. {_even(ring)}: {ring.node_count:,} nodes "
        f"in {rings}.\nThe largest ring: {_even(largest)[0].lower()}{_even(largest)[1:]}.\n"
        "Brokers of Kafka, batch jobs and the object storage are not among these nodes.\n"
    )


def _even(ring: RingCheck) -> str:
    balance = ring.balance
    return (
        f"A simulated ring of {ring.simulated_servers:,} servers with {ring.shards:,} shards has "
        f"{balance.load_factor_max:.2f} times its fair share on the fullest, and moves "
        f"{balance.moved_to_fair_mean:.2f} fair shares (at most {balance.moved_to_fair_max:.2f}) when a server comes "
        "or goes"
    )


def amount_of(resource: str, amount: float) -> tuple[str, str]:
    """An amount and its unit."""
    scale, unit = _UNITS[resource]
    return f"{amount / scale:,.1f}", unit


def size_of(text: str, option: str) -> float:
    """Bytes of "100PB", "512GiB" or a plain number."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    unit = _SIZES.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise InvalidArgument(
            f"{option} {text!r} is not a size like 512GiB, 16TB or 100PB",
            reason="SIZE",
            field=option,
            metadata={"value": text[:100]},
        )
    return float(match[1]) * unit
