"""Nodes, edges, what a node reaches, and the runs that show edges."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Final

from headrace.definitions.transform import canonical_json
from headrace.errors import InvalidArgument

NAME_LENGTH_MAX: Final = 2_400  # a URI of 2,048 characters with its kind and version; an index of PostgreSQL takes it


class NodeKind(IntEnum):
    """What a node is; the numbers are those of the contract and of the log."""

    SOURCE = 1
    SOURCE_COLUMN = 2
    ENTITY = 3
    FEATURE_VIEW = 4
    FEATURE = 5
    ON_DEMAND_VIEW = 6
    FEATURE_SERVICE = 7
    MODEL = 8
    DATASET = 9
    SNAPSHOT = 10
    JOB = 11
    RUN = 12
    TRAINING_SET = 13

    @property
    def label(self) -> str:
        """Words for people: `feature view`."""
        return self.name.lower().replace("_", " ").replace("on demand", "on-demand")


class EdgeKind(IntEnum):
    """How the target uses the source; the numbers are those of the contract and of the log."""

    CONTAINS = 1
    READS = 2
    VALUE = 3
    FILTER = 4
    KEY = 5
    TIME = 6
    SERVES = 7
    PINS = 8
    RUNS = 9
    WRITES = 10


class NodeChange(IntEnum):
    """What is to happen to a node; the numbers are those of the contract."""

    ANY = 0
    DROP = 1
    RENAME = 2
    RETYPE = 3


class Effect(IntEnum):
    """What that does to another; the numbers are those of the contract."""

    AFFECTED = 1
    BROKEN = 2
    STARVED = 3
    RECOMPILED = 4


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One node by its text: `team.domain.name`, `….name:column`, `….name@v1`, `….name@v1:feature`, `run:ID`."""

    kind: NodeKind
    name: str

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > NAME_LENGTH_MAX or not self.name.isprintable():
            raise InvalidArgument(
                f"{self.name[:100]!r} is no name of a {self.kind.label}: printable, 1 to {NAME_LENGTH_MAX} characters",
                reason="INVALID_NAME",
                field="name",
            )


@dataclass(frozen=True, slots=True)
class PathStep:
    """One node of a path, and how it uses the one before; the first has no kind."""

    node: Node
    kind: EdgeKind | None = None
    transform: str = ""


@dataclass(frozen=True, slots=True)
class Impacted:
    """One node that is reached."""

    node: Node
    hop_count: int
    owner: str
    effect: Effect
    path: tuple[PathStep, ...]


@dataclass(frozen=True, slots=True)
class Total:
    """How many nodes of a kind are reached in a number of hops."""

    hop_count: int
    kind: NodeKind
    count: int


class RunState(IntEnum):
    """How a run ended; the numbers are those of the contract."""

    SUCCEEDED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True, order=True)
class RunData:
    """One thing that a run read or wrote, by the text of its node; `version` such as the number of a snapshot."""

    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job. `digests` prove outputs: SHA-256 by the text of the node."""

    run_id: str
    job: str
    state: RunState
    start_time_us: int
    end_time_us: int
    inputs: tuple[RunData, ...] = ()
    outputs: tuple[RunData, ...] = ()
    git_sha: str = ""
    kernel_version: str = ""
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def digest(self) -> str:
        """Tells another run under the same id apart."""
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()


class UpstreamKind(IntEnum):
    """What changed above a node; the numbers are those of the contract."""

    EDGE = 1
    SCHEMA = 2
    CODE = 3
    DATA = 4
    OWNER = 5
    SLA = 6
    DEFINITION = 7


@dataclass(frozen=True, slots=True)
class UpstreamChange:
    """One change above a node: what it is, where, and the path from the node that was asked about to there."""

    kind: UpstreamKind
    node: Node
    hop_count: int
    time_us: int
    text: str
    owner: str
    path: tuple[PathStep, ...]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that a model was made of; `digest` proves it where there is a proof, `detail` says what it is."""

    node: Node
    hop_count: int
    owner: str
    exists: bool
    digest: str = ""
    detail: str = ""
