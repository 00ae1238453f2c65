"""Window states: partial aggregates with the same bytes and results whatever the order and grouping of the events."""

from typing import NamedTuple

import cython
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset


cdef extern from "hr_layout.h" nogil:
    enum:
        HR_BOOL
        HR_F32
        HR_F64
        HR_STRING
        HR_BYTES


KIND_COUNT = HR_KIND_COUNT
KIND_SUM = HR_KIND_SUM
KIND_MOMENTS = HR_KIND_MOMENTS
KIND_MIN = HR_KIND_MIN
KIND_MAX = HR_KIND_MAX
KIND_FIRST = HR_KIND_FIRST
KIND_LAST = HR_KIND_LAST
KIND_DISTINCT = HR_KIND_DISTINCT
KIND_QUANTILE = HR_KIND_QUANTILE
KIND_TOP = HR_KIND_TOP
KIND_LAST_N = HR_KIND_LAST_N
KIND_RATIO = HR_KIND_RATIO
KIND_DECAYED = HR_KIND_DECAYED
LOST_NOTHING = HR_LOST_NOTHING
LOST_OVERFLOW = HR_LOST_OVERFLOW
LOST_DIVISION = HR_LOST_DIVISION
LOST_BUCKETS = HR_LOST_BUCKETS
LOST_VALUES = HR_LOST_VALUES
BUCKETS_MAX = HR_BUCKETS_MAX
TOP_VALUES_MAX = HR_TOP_VALUES_MAX
TOP_BYTES_MAX = HR_TOP_BYTES_MAX
HALF_LIVES_MAX = HR_HALF_LIVES_MAX


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


cdef hr_state_spec spec_from(spec) except *:
    cdef hr_state_spec held
    held.kind, held.scalar, held.scalar2, held.parameter = spec
    if hr_state_spec_check(&held) != HR_STATE_OK:
        raise ValueError(f"{spec} is no state: the kind, the types and the parameter do not fit together")
    return held


cdef object refused(int status, spec, what):
    if status == HR_STATE_OK:
        return
    if status == HR_STATE_NO_MEMORY:
        raise MemoryError
    if status == HR_STATE_TOO_LARGE:
        raise StateTooLargeError(f"{what} of {spec} passes a bound; give it more room or fewer values")
    if status == HR_STATE_CORRUPT:
        raise CorruptStateError(f"{what}: these bytes are no state of {spec}")
    if status == HR_STATE_NOT_RETRACTABLE:
        raise NotRetractableError(f"{what}: {spec} cannot take this back; build the state anew from what remains")
    raise ValueError(f"{what} does not fit {spec}")


cdef object value_of(uint8_t scalar, const hr_value *value):
    if value.is_null:
        return None
    if scalar == HR_STRING or scalar == HR_BYTES:
        text = value.bytes[:value.length] if value.length > 0 else b""
        return text.decode("utf-8", "surrogateescape") if scalar == HR_STRING else text
    if scalar == HR_F32 or scalar == HR_F64:
        return value.f
    return bool(value.i) if scalar == HR_BOOL else value.i


cdef hr_value value_from(uint8_t scalar, value, list held) except *:
    """`held` keeps the bytes of texts alive."""
    cdef hr_value made
    cdef bytes text
    memset(&made, 0, sizeof(made))
    if value is None or scalar == 0:
        made.is_null = value is None
    elif scalar == HR_STRING or scalar == HR_BYTES:
        text = value.encode("utf-8", "surrogateescape") if scalar == HR_STRING else value
        held.append(text)
        made.bytes = text
        made.length = len(text)
    elif scalar == HR_F32:
        made.f = <float>value
    elif scalar == HR_F64:
        made.f = value
    else:
        made.i = value
    return made


def spec_of(int aggregate, uint8_t scalar, uint8_t scalar2=0, int64_t parameter=0):
    """The state that an aggregate needs. Raises ValueError where the types or the parameter do not fit."""
    cdef hr_state_spec held
    if hr_state_spec_of(aggregate, scalar, scalar2, parameter, &held) != HR_STATE_OK:
        raise ValueError(
            f"aggregate {aggregate} does not fit types {scalar}, {scalar2} and parameter {parameter}")
    return StateSpec(held.kind, held.scalar, held.scalar2, held.parameter)


def answers(spec not None, int aggregate, int64_t parameter=0):
    """Whether a state gives the result of an aggregate."""
    cdef hr_state_spec held = spec_from(spec)
    return bool(hr_state_answers(&held, aggregate, parameter))


def result_scalar(int aggregate, uint8_t scalar):
    """Element type of a result."""
    return hr_state_result_scalar(aggregate, scalar)


def can_retract(spec not None):
    """Whether what a state took can be taken back."""
    cdef hr_state_spec held = spec_from(spec)
    return bool(hr_state_can_retract(&held))


def bytes_max(spec not None, size_t text_bytes=0):
    """Most bytes of an encoding whose texts have at most `text_bytes` bytes each."""
    cdef hr_state_spec held = spec_from(spec)
    return hr_state_bytes_max(&held, text_bytes)


def check(spec not None, const uint8_t[::1] encoded not None):
    """Raises CorruptStateError unless the bytes are exactly what some state encodes to."""
    cdef hr_state_spec held = spec_from(spec)
    cdef const uint8_t *start = &encoded[0] if encoded.shape[0] > 0 else NULL
    refused(hr_state_check(&held, start, encoded.shape[0]), spec, "check")


@cython.final
cdef class State:
    """The working form of one state, for one thread."""

    def __cinit__(self, spec not None):
        cdef hr_state_spec held = spec_from(spec)
        self.state = <hr_state *>calloc(1, sizeof(hr_state))
        if self.state == NULL:
            raise MemoryError
        refused(hr_state_init(self.state, &held), spec, "init")
        self.spec = StateSpec(*spec)

    def __dealloc__(self):
        if self.state != NULL:
            hr_state_free(self.state)
            free(self.state)

    @property
    def is_empty(self):
        """Whether it holds no value."""
        return bool(hr_state_is_empty(self.state))

    def reset(self):
        """Drops every value and keeps the buffers."""
        hr_state_reset(self.state)

    cdef int take(self, value, second, order, bint back) except -1:
        cdef list held = []
        cdef hr_value first = value_from(self.state.spec.scalar, value, held)
        cdef hr_value other = value_from(self.state.spec.scalar2, second, held)
        cdef hr_order at
        cdef int status
        at.event_us, at.write_us, at.source_id, at.partition, at.offset = order
        if back:
            status = hr_state_retract(self.state, &first, &other, &at)
        else:
            status = hr_state_add(self.state, &first, &other, &at)
        self.settle(status, "retract" if back else "add")
        return 0

    cdef int settle(self, int status, what) except -1:
        """Leaves an empty state behind a failure that may have left half a change."""
        if status not in (HR_STATE_OK, HR_STATE_NOT_RETRACTABLE, HR_STATE_MISUSED):
            hr_state_reset(self.state)
        refused(status, self.spec, what)
        return 0

    def add(
        self, value, second=None, *, int64_t event_us=0, int64_t write_us=0, uint32_t source_id=0,
        int32_t partition=0, int64_t offset=0,
    ):
        """Takes a value (None is NULL and ignored); `second` is the denominator of a ratio."""
        self.take(value, second, (event_us, write_us, source_id, partition, offset), False)

    def retract(
        self, value, second=None, *, int64_t event_us=0, int64_t write_us=0, uint32_t source_id=0,
        int32_t partition=0, int64_t offset=0,
    ):
        """Takes back a value that was added."""
        self.take(value, second, (event_us, write_us, source_id, partition, offset), True)

    def merge_bytes(self, const uint8_t[::1] encoded not None):
        """Takes in an encoded state."""
        cdef const uint8_t *start = &encoded[0] if encoded.shape[0] > 0 else NULL
        self.settle(hr_state_merge_bytes(self.state, start, encoded.shape[0]), "merge_bytes")

    def retract_bytes(self, const uint8_t[::1] encoded not None):
        """Takes an encoded state back."""
        cdef const uint8_t *start = &encoded[0] if encoded.shape[0] > 0 else NULL
        self.settle(hr_state_retract_bytes(self.state, start, encoded.shape[0]), "retract_bytes")

    def merge(self, State other not None):
        """Takes in another state of the same specification."""
        self.settle(hr_state_merge(self.state, other.state), "merge")

    def encode(self, size_t capacity=1 << 22):
        """Bytes of the state. Raises StateTooLargeError beyond `capacity`."""
        cdef size_t length = 0
        cdef uint8_t *to = <uint8_t *>malloc(capacity + 1)
        if to == NULL:
            raise MemoryError
        try:
            refused(hr_state_encode(self.state, to, capacity, &length), self.spec, "encode")
            return to[:length] if length > 0 else b""
        finally:
            free(to)

    def result(self, int aggregate, int64_t parameter=0, int64_t read_us=0):
        """Result of an aggregate that the state answers; `read_us` is T of decayed sums."""
        cdef hr_result found
        cdef uint8_t scalar
        refused(
            hr_state_result(self.state, aggregate, parameter, read_us, &found), self.spec, f"aggregate {aggregate}")
        scalar = hr_state_result_scalar(aggregate, self.state.spec.scalar)
        if found.is_list and not found.value.is_null:
            return Result([value_of(scalar, &found.items[i]) for i in range(found.item_count)], found.lost)
        return Result(value_of(scalar, &found.value), found.lost)
