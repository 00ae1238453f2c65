"""GetOnlineFeatures from request bytes to response bytes, without a Python object while every row is in the table."""

from collections.abc import Mapping, Sequence
from typing import final

from core_ext.computed import ComputedView
from core_ext.on_demand import OnDemand
from core_ext.row_codec import Schema
from core_ext.row_table import RowTable
from core_ext.served_ring import ServedRing

ROW_COUNT_MAX: int
COLUMN_COUNT_MAX: int
ON_DEMAND: int
"""Group of a column that is the result of an on-demand program."""

class Refused(Exception):
    """The request is wrong. `reason` is UPPER_SNAKE, `field` a path such as entity_columns[1].string_values[7]."""

    reason: str
    field: str
    message: str
    metadata: dict[str, str]
    def __init__(self, reason: str, field: str, message: str, metadata: dict[str, str]) -> None: ...

@final
class Plan:
    """One resolved selection.

    join_keys: (name, element type) per request column. lookups: (entity id, indexes into join_keys in key order).
    groups: (lookup, view id, schema, ttl_us, stale_us, fallback, computed), limits of 0 meaning none, and
    computed None where rows are answered as they are stored.
    columns: (output name, group, column of the schema, default bytes as in a response slot or None), or, of on-demand
    features, (output name, ON_DEMAND, program, None). inputs: (group, column, default), what `on_demand` reads; they
    are gathered and not answered.
    tiles: rows may be gathered by vector instructions where the machine has them; False is for comparisons.
    handle: 32 bytes. revision: that of the registry. Raises ValueError when an index is out of range.
    """

    handle: bytes
    revision: int
    def __init__(
        self,
        handle: bytes,
        revision: int,
        join_keys: Sequence[tuple[str, int]],
        lookups: Sequence[tuple[int, Sequence[int]]],
        groups: Sequence[tuple[int, int, Schema, int, int, int, ComputedView | None]],
        columns: Sequence[tuple[str, int, int, bytes | None]],
        inputs: Sequence[tuple[int, int, bytes | None]] = (),
        on_demand: OnDemand | None = None,
        tiles: bool = True,
    ) -> None: ...
    @property
    def row_count(self) -> int:
        """Rows that were answered by it."""
    @property
    def has_tiles(self) -> bool:
        """Whether rows are gathered by vector instructions."""

class Misses:
    """Rows that the table does not hold. Fetch them, then serve again with an overlay."""

    storage_keys: list[bytes]
    shards: list[int]
    wants_offsets: list[tuple[int, int, int]]
    """min_offsets of the request as (shard, epoch, offset); checked before the rows are read."""
    partial: bool
    """False when the caller asked for PARTIAL_POLICY_FAIL."""
    def __init__(
        self,
        storage_keys: list[bytes],
        shards: list[int],
        wants_offsets: list[tuple[int, int, int]],
        partial: bool,
    ) -> None: ...

class Unresolved:
    """The selection is not among the published plans: resolve it, then serve again with the plan."""

    feature_service: str
    handle: bytes
    features: list[str]
    def __init__(self, feature_service: str, handle: bytes, features: list[str]) -> None: ...

@final
class Overlay:
    """Rows of one request beside the table: what was fetched, what is unavailable and why."""

    def __init__(self) -> None: ...
    def add(self, storage_keys: Sequence[bytes], rows: Sequence[bytes | None]) -> None:
        """Adds fetched rows; None means that no row is stored. Rows must have passed check_row."""
    def add_unavailable(self, storage_keys: Sequence[bytes], cause: int) -> None:
        """Marks rows as not readable; cause is one of core_ext.rules CAUSE_DEADLINE, CAUSE_QUARANTINED."""

@final
class PlanSet:
    """Plans that are published together; made by `RequestCore.publish`."""

    def __init__(self, plans: Sequence[Plan], services: Mapping[str, Plan], revision: int) -> None: ...

@final
class RequestCore:
    """Serves requests from a table and the published plans."""

    def __init__(self, table: RowTable, shard_count: int) -> None: ...
    def publish(self, plans: Sequence[Plan], services: Mapping[str, Plan], revision: int) -> None:
        """Replaces all plans at once. services maps both "name" and "name@v2" to a plan."""
    def log_reads(self, ring: ServedRing) -> None:
        """Hands a sample of the answers to a log. Raises ValueError the second time, or for other shards."""
    def mark(self, overlay: Overlay) -> None:
        """Notes in an overlay, once, how far the shards are before rows are fetched for it; for the log alone."""
    def serve(
        self,
        request: bytes,
        read_time_us: int,
        plan: Plan | None = None,
        overlay: Overlay | None = None,
        trace_id: bytes | None = None,
    ) -> bytes | Misses | Unresolved:
        """Response bytes, or what is needed first. Raises Refused.

        A request with min_offsets always answers Misses first (its storage_keys may be empty) unless an
        overlay is given: the caller checks the offsets and serves again. The trace id, 16 bytes, is for the log.
        """
