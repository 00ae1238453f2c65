"""What row parity works on: logged values, the hypotheses to re-derive them under, and who answers those."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from core_ext import rules
from headrace.errors import InvalidArgument
from headrace.names import FeatureRef
from headrace.served import NO_ROW_US

STATES: Final = (rules.PRESENT, rules.NULL, rules.MISSING, rules.EXPIRED, rules.UNAVAILABLE)
STATUS_MAX: Final = 0xFF
TIME_MAX: Final = 2**63 - 1
NO_OFFSET: Final = -1  # of a shard that has applied nothing
NO_ROW: Final = NO_ROW_US


@dataclass(frozen=True, slots=True)
class Answer:
    """One value as an answer carries it: status byte, and its canonical little-endian bytes (none in an empty slot).

    `event_time_us` is that of the row it came from, NO_ROW where there was none, None where it is not known.
    """

    status: int
    value: bytes = b""
    event_time_us: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.status <= STATUS_MAX or self.state not in STATES:
            raise _invalid("status", self.status, "a status byte with a state of 1 to 5")
        if self.value and not self.has_value:
            raise _invalid("value", self.value.hex()[:40], f"empty, as status {self.status:#04x} leaves the slot empty")

    @property
    def state(self) -> int:
        """PRESENT, NULL, MISSING, EXPIRED or UNAVAILABLE."""
        return self.status & rules.STATE_MASK

    @property
    def has_value(self) -> bool:
        """Whether the slot holds a value: docs/decisions/0010-withheld.md."""
        if self.status & rules.DEFAULTED or self.state == rules.PRESENT:
            return True
        return self.state == rules.EXPIRED and not self.status & rules.WITHHELD

    def same_as(self, other: "Answer") -> bool:
        """Whether a model could not tell them apart; STALE is left out, as a mutable SLA decides it."""
        return (self.status ^ other.status) & ~rules.STALE == 0 and self.value == other.value

    def explained_by(self, other: "Answer") -> bool:
        """Whether a hypothesis gives it, by the same row where both say which: an empty slot has many explanations."""
        if None not in (self.event_time_us, other.event_time_us) and self.event_time_us != other.event_time_us:
            return False
        return self.same_as(other)


@dataclass(frozen=True, slots=True)
class Served:
    """One logged value. Time and offset are those that the receiving server fixed for the read of this view's row."""

    entity_key: bytes
    feature: FeatureRef
    answer: Answer
    time_us: int
    shard: int
    shard_epoch: int
    applied_offset: int
    registry_revision: int
    transform_digest: bytes
    feature_service: str = ""  # "name@v2"; empty where a list of features was read
    trace_id: bytes = b""  # empty where the read was not traced

    def __post_init__(self) -> None:
        if not self.entity_key:
            raise _invalid("entity_key", "empty", "the canonical key bytes")
        if self.feature.version < 1:
            raise _invalid("feature", self.feature, "a pinned reference like 'a.b.c@v1:d'")
        if not -TIME_MAX <= self.time_us <= TIME_MAX:
            raise _invalid("time_us", self.time_us, "UTC microseconds of 64 bits")
        for name, least in (("shard", 0), ("shard_epoch", 0), ("applied_offset", NO_OFFSET), ("registry_revision", 0)):
            if getattr(self, name) < least:
                raise _invalid(name, getattr(self, name), f"{least} or more")


class Knowledge(StrEnum):
    """Which rows of the entity a re-derivation sees; an event after its time is never among them.

    APPLIED: offsets up to the recorded one. ACKNOWLEDGED: those, and rows written up to T. KNOWN: all up to the
    cut-off of the run. NOTHING: none. WITHOUT_NEWEST: APPLIED less the greatest row of the total order.
    """

    APPLIED = "applied"
    ACKNOWLEDGED = "acknowledged"
    KNOWN = "known"
    NOTHING = "nothing"
    WITHOUT_NEWEST = "without_newest"


class Rule(StrEnum):
    """How expiry and defaults are decided: as the view declares, or by force."""

    DECLARED = "declared"
    NEVER = "never"
    ALWAYS = "always"


class Edge(StrEnum):
    """Which events near an edge are seen: as declared, or off by one.

    BEFORE_TIME: event < T. PAST_TIME: event <= T + 1 us. FROM_START: the window's start is seen as well.
    HOP_EARLIER, HOP_LATER: the window starts one hop earlier or later. An edge that a view lacks changes nothing.
    """

    DECLARED = "declared"
    BEFORE_TIME = "before_time"
    PAST_TIME = "past_time"
    FROM_START = "from_start"
    HOP_EARLIER = "hop_earlier"
    HOP_LATER = "hop_later"


@dataclass(frozen=True, slots=True)
class Derivation:
    """One hypothesis: the answer at T under these rules, all else as registered at the recorded revision.

    `version` 0 is the version that the log names.
    """

    knowledge: Knowledge = Knowledge.APPLIED
    expiry: Rule = Rule.DECLARED
    defaulting: Rule = Rule.DECLARED
    edge: Edge = Edge.DECLARED
    version: int = 0


class Evidence(Protocol):
    """Answers hypotheses, many values at once, from the offline store and the registry."""

    def derive(self, served: Sequence[Served], derivation: Derivation) -> Sequence[Answer]:
        """The answer of each value under a hypothesis, in order. A version without the feature answers MISSING."""
        ...

    def transform_digests(self, served: Sequence[Served]) -> Sequence[Mapping[int, bytes]]:
        """Digest of every version of each value's view that the registry held at the recorded revision, in order."""
        ...


def _invalid(field: str, found: object, wanted: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} of a served value is {found}; it must be {wanted}",
        reason="INVALID_SERVED_VALUE",
        field=field,
        metadata={"found": str(found)},
    )
