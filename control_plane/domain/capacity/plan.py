"""From a load and what one core was measured to do to cores, memory, disk, network and nodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.capacity.figures import Measured
from core_ext.row_codec import Schema
from headrace.errors import InvalidArgument
from headrace.types import Scalar, Shape

GIB: Final = 1 << 30
VALUE_BYTES: Final = 8  # f64, as most features are
STATUS_BYTES: Final = 1  # of a value in an answer
KEY_BYTES: Final = 32  # of an entity, its view and the place in the log
LOG_COPIES: Final = 3  # of Kafka: RF 3
BITS: Final = 8


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the deployment."""

    events_per_s: float
    feature_writes_per_s: float
    requests_per_s: float
    features: int  # of one request
    features_per_row: int
    history_bytes: float  # in object storage
    online_bytes: float  # rows of one copy

    def __post_init__(self) -> None:
        for name in ("events_per_s", "feature_writes_per_s", "requests_per_s", "history_bytes", "online_bytes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise _wrong(name, getattr(self, name), "0 or more")
        if self.features < 1 or self.features_per_row < 1:
            raise _wrong("features", min(self.features, self.features_per_row), "1 or more")


@dataclass(frozen=True, slots=True)
class Node:
    """One machine, and how much of each part may be in use at once; the recorded latencies are those at 60 % load."""

    cores: int
    memory_bytes: float
    disk_bytes: float
    network_bits_per_s: float
    replicas: int
    busy_share: float = 0.6
    full_share: float = 0.7

    def __post_init__(self) -> None:
        for name in ("cores", "memory_bytes", "disk_bytes", "network_bits_per_s", "replicas"):
            if not 0 < getattr(self, name) < math.inf:
                raise _wrong(name, getattr(self, name), "above 0")
        for name in ("busy_share", "full_share"):
            if not 0 < getattr(self, name) <= 1:
                raise _wrong(name, getattr(self, name), "above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Need:
    """One line of a plan: an amount of a resource, how it comes about and what figure it rests on."""

    resource: str
    what: str
    amount: float
    how: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Needs, and the nodes that meet each resource on its own; most of them are set by `binding`."""

    needs: Sequence[Need]
    nodes_by_resource: dict[str, int]
    row_bytes: int

    @property
    def node_count(self) -> int:
        """Servers of the ring, evenly loaded."""
        return max(self.nodes_by_resource.values())

    @property
    def binding(self) -> str:
        """The resource that asks for most nodes."""
        return max(self.nodes_by_resource, key=lambda name: self.nodes_by_resource[name])

    def total(self, resource: str) -> float:
        """Sum of the needs of a resource."""
        return sum(need.amount for need in self.needs if need.resource == resource)


def row_bytes(feature_count: int) -> int:
    """Bytes of a row by the codec that writes it, with its key."""
    return int(Schema(1, [(int(Scalar.F64), int(Shape.SINGLE), 0)] * feature_count).fixed_bytes) + KEY_BYTES


def plan(load: Load, node: Node, measured: Measured) -> Plan:
    """What a load needs; speeds are those of the recorded figures, sizes those of the codec."""
    size = row_bytes(load.features_per_row)
    rows = load.feature_writes_per_s / load.features_per_row
    needs = [
        *_cores(load, node, measured, rows),
        *_storage(load, node, measured, size),
        *_network(load, node, rows, size),
    ]
    sums = {name: sum(need.amount for need in needs if need.resource == name) for name in ("cores", "memory", "disk")}
    network = sum(need.amount for need in needs if need.resource == "network")
    nodes = {
        "cores": sums["cores"] / (node.cores * node.busy_share),
        "memory": sums["memory"] / (node.memory_bytes * node.full_share),
        "disk": sums["disk"] / (node.disk_bytes * node.full_share),
        "network": network / (node.network_bits_per_s * node.busy_share),
    }
    return Plan(needs, {name: max(node.replicas, math.ceil(count)) for name, count in nodes.items()}, size)


def _cores(load: Load, node: Node, measured: Measured, rows: float) -> list[Need]:
    read, written, streamed = measured.requests, measured.rows, measured.events
    reads = load.requests_per_s * load.features / read.features
    return [
        Need(
            "cores", f"reads of {load.features} features", reads / read.rate,
            f"{load.requests_per_s:,.0f} requests/s, {read.rate:,.0f} of {read.features} features a core: {read.note}",
            read.origin,
        ),
        Need(
            "cores", "rows written to every copy", rows * node.replicas / written.rate,
            f"{rows:,.0f} rows/s x {node.replicas} copies, {written.rate:,.0f} a core: {written.note}",
            written.origin,
        ),
        Need(
            "cores", "events through the pipeline", load.events_per_s / streamed.rate,
            f"{load.events_per_s:,.0f} events/s, {streamed.rate:,.0f} a core: {streamed.note}",
            streamed.origin,
        ),
    ]  # fmt: skip


def _storage(load: Load, node: Node, measured: Measured, size: int) -> list[Need]:
    copies = load.online_bytes * node.replicas
    cached = copies * measured.cached_share * measured.memory_factor
    return [
        Need(
            "memory", "rows in the row table", cached,
            f"{measured.cached_share:.0%} of {node.replicas} copies, {measured.memory_factor:g} bytes a packed byte",
            f"{measured.cached_origin}, {measured.memory_origin}",
        ),
        Need("disk", "rows of all copies", copies, f"{load.online_bytes / size:,.0f} rows of {size} bytes a copy"),
        Need("object storage", "history", load.history_bytes, "columnar files on the offline store's own storage"),
    ]  # fmt: skip


def _network(load: Load, node: Node, rows: float, size: int) -> list[Need]:
    answer = load.features * (VALUE_BYTES + STATUS_BYTES)
    return [
        Need(
            "network", "answers, once between servers and once to the client", 2 * load.requests_per_s * answer * BITS,
            f"{answer:,} bytes an answer, every key on another server",
        ),
        Need(
            "network", "rows to every copy", rows * size * node.replicas * BITS,
            f"{size} bytes a row, {node.replicas} copies",
        ),
        Need(
            "network", "rows and events on the log", LOG_COPIES * (rows + load.events_per_s) * size * BITS,
            f"{LOG_COPIES} copies of the log, events as large as rows",
        ),
    ]  # fmt: skip


def _wrong(name: str, value: float, wanted: str) -> InvalidArgument:
    option = f"--{name.replace('_', '-')}"
    return InvalidArgument(f"{option} {value:g} is not {wanted}", reason="CAPACITY_INPUT", field=option)
