"""Window states: partial aggregates with the same bytes and results whatever the order and grouping of the events."""

from typing import NamedTuple, final

KIND_COUNT: int
KIND_SUM: int
KIND_MOMENTS: int
KIND_MIN: int
KIND_MAX: int
KIND_FIRST: int
KIND_LAST: int
KIND_DISTINCT: int
KIND_QUANTILE: int
KIND_TOP: int
KIND_LAST_N: int
KIND_RATIO: int
KIND_DECAYED: int
LOST_NOTHING: int
LOST_OVERFLOW: int
LOST_DIVISION: int
LOST_BUCKETS: int
LOST_VALUES: int
BUCKETS_MAX: int
TOP_VALUES_MAX: int
TOP_BYTES_MAX: int
HALF_LIVES_MAX: int

class StateSpec(NamedTuple):
    """What a state keeps, as hr_state_spec of native/hr_state_value.h."""

    kind: int
    scalar: int
    scalar2: int = 0
    parameter: int = 0

class Result(NamedTuple):
    """A value, a list of values or None, and why values were lost (LOST_*)."""

    value: object
    lost: int

class CorruptStateError(ValueError):
    """Bytes that no state encodes to."""

class StateTooLargeError(ValueError):
    """An encoding beyond its capacity, or values beyond a bound of the state's kind."""

class NotRetractableError(ValueError):
    """Values that cannot be taken back."""

def spec_of(aggregate: int, scalar: int, scalar2: int = 0, parameter: int = 0) -> StateSpec:
    """The state that an aggregate needs; the numbers are those of headrace.

    Raises ValueError where the types or the parameter do not fit.
    """

def answers(spec: StateSpec, aggregate: int, parameter: int = 0) -> bool:
    """Whether a state gives the result of an aggregate."""

def result_scalar(aggregate: int, scalar: int) -> int:
    """Element type of a result."""

def can_retract(spec: StateSpec) -> bool:
    """Whether what a state took can be taken back."""

def bytes_max(spec: StateSpec, text_bytes: int = 0) -> int:
    """Most bytes of an encoding whose texts have at most `text_bytes` bytes each."""

def check(spec: StateSpec, encoded: bytes) -> None:
    """Raises CorruptStateError unless the bytes are exactly what some state encodes to."""

@final
class State:
    """The working form of one state, for one thread.

    A failed change leaves an empty state, but for NotRetractableError, which leaves it as it was.
    """

    spec: StateSpec

    def __init__(self, spec: StateSpec) -> None: ...
    @property
    def is_empty(self) -> bool:
        """Whether it holds no value."""

    def reset(self) -> None:
        """Drops every value and keeps the buffers."""

    def add(
        self,
        value: object,
        second: object = None,
        *,
        event_us: int = 0,
        write_us: int = 0,
        source_id: int = 0,
        partition: int = 0,
        offset: int = 0,
    ) -> None:
        """Takes a value (None is NULL and ignored); `second` is the denominator of a ratio."""

    def retract(
        self,
        value: object,
        second: object = None,
        *,
        event_us: int = 0,
        write_us: int = 0,
        source_id: int = 0,
        partition: int = 0,
        offset: int = 0,
    ) -> None:
        """Takes back a value that was added. Raises NotRetractableError."""

    def merge_bytes(self, encoded: bytes) -> None:
        """Takes in an encoded state. Raises CorruptStateError."""

    def retract_bytes(self, encoded: bytes) -> None:
        """Takes an encoded state back. Raises NotRetractableError, CorruptStateError."""

    def merge(self, other: State) -> None:
        """Takes in another state of the same specification."""

    def encode(self, capacity: int = ...) -> bytes:
        """Bytes of the state. Raises StateTooLargeError beyond `capacity`."""

    def result(self, aggregate: int, parameter: int = 0, read_us: int = 0) -> Result:
        """Result of an aggregate that the state answers; `read_us` is T of decayed sums."""
