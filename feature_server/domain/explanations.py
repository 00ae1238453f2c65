"""Explains one feature of one entity: reads it as GetOnlineFeatures does, and keeps what the read has found."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core_ext.answers import STATUSES, Answer
from core_ext.keys import encode_key, shard_of_slot, slot_of_key, storage_key
from core_ext.request_core import Misses, Overlay, Plan, Refused, RequestCore
from core_ext.row_codec import RowHeader, check_row
from core_ext.row_table import RowTable
from core_ext.rules import CAUSE_QUARANTINED
from core_ext.window_tiles import folded_window
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.explained import Answered, ExplainedFeature, Explanation, FoundRow, Place, WindowFacts
from feature_server.domain.explained_reasons import Read, reasons_of, transform_of
from feature_server.domain.reads import READ_PERMISSION, Reads, translated
from feature_server.domain.row_log import LogPosition
from feature_server.domain.selected import AnyColumn, SelectedColumn
from feature_server.domain.selector import Selector
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.storage_keys import view_id_of
from headrace.definitions.transforms import Window
from headrace.errors import InvalidArgument, PeerError
from headrace.serving.principal import Principal

TABLE_BYTES: Final = 1 << 18  # of a table that stays empty: the least that one takes
INPUT_COUNT_MAX: Final = 2_000  # features of one explanation, as many as one read answers
_TILES_AT: Final = 56  # of the start of the tile map in a row, as native/hr_layout.h
_CHECKSUM_BYTES: Final = 4

KeyPart = int | str | bytes
Request = Callable[[Sequence[str], bool], bytes]
"""Read of the given join keys, with or without the request data."""


class Explanations:
    """Explains features.

    The core that answers has a table of its own, which stays empty, so that every row passes through here, nothing is
    put in or out of the table of the reads, and no answer gets into the log of served ones.
    """

    def __init__(
        self, table: RowTable, shards: ShardSet, catalogue: Catalogue, reads: Reads, clock_us: Callable[[], int]
    ) -> None:
        self._core = RequestCore(RowTable(TABLE_BYTES), len(shards))
        self._table = table
        self._shards = shards
        self._catalogue = catalogue
        self._reads = reads
        self._clock_us = clock_us

    def explain(
        self,
        principal: Principal,
        feature: str,
        keys: Mapping[str, KeyPart | None],
        request: Request,
        *,
        has_request_data: bool,
    ) -> Explanation:
        """Explains "view@v3:feature" of the entity with these join keys. Raises HeadraceError."""
        principal.require(READ_PERMISSION)
        selector = self._catalogue.selector()
        root = selector.find(feature)
        _check_keys(root, keys)
        tree = _Tree(selector, root, has_request_data)
        columns = [column for column in tree.columns if tree.is_computed(column)]
        prepared = selector.prepare(columns) if columns else None
        read_time_us = self._clock_us()
        rows = _Rows(self._table, self._shards, self._reads, self._catalogue, selector)
        answer = b""
        if prepared is not None:
            data = request(tuple(prepared.join_keys), bool(prepared.request_fields))
            answer = self._answer(data, read_time_us, prepared.plan, rows)
        statuses = _statuses(answer, columns) if answer else {}
        reading = _Reading(selector, keys, rows, statuses, read_time_us, self._shards, self._catalogue)
        return Explanation(reading.explained(tree, root), answer, read_time_us, selector.state.revision)

    def _answer(self, request: bytes, read_time_us: int, plan: Plan, rows: "_Rows") -> bytes:
        overlay = Overlay()
        try:
            answer = self._core.serve(request, read_time_us, plan, overlay)
            while isinstance(answer, Misses):
                for key, shard in zip(answer.storage_keys, answer.shards, strict=True):
                    found = rows.found(key, shard)
                    if found.problem:
                        overlay.add_unavailable([key], CAUSE_QUARANTINED)
                    else:
                        overlay.add([key], [found.row])
                answer = self._core.serve(request, read_time_us, plan, overlay)
        except Refused as refused:
            raise translated(refused) from refused
        assert isinstance(answer, bytes), "a plan leaves nothing to resolve"
        return answer


class _Rows:
    """Rows of one explanation by storage key, each looked up once."""

    def __init__(
        self, table: RowTable, shards: ShardSet, reads: Reads, catalogue: Catalogue, selector: Selector
    ) -> None:
        self._table = table
        self._shards = shards
        self._reads = reads
        self._catalogue = catalogue
        self._selector = selector
        self._found: dict[bytes, FoundRow] = {}

    def found(self, key: bytes, shard: int) -> FoundRow:
        """The row of a key, from memory where it is there, as a read takes it."""
        if key not in self._found:
            self._found[key] = self._look_up(key, shard)
        return self._found[key]

    def _look_up(self, key: bytes, number: int) -> FoundRow:
        self._reads.check_here(number)
        held = self._table.lookup([key])[0]
        is_cached = not isinstance(held, int)
        if is_cached:
            row = held
        else:
            try:
                row = self._reads.stored_rows(number, [key])[0]
                self._reads.check_here(number)  # a shard that was dropped meanwhile was read empty
            except PeerError as error:
                return FoundRow(problem=error.message)
        if row is None:
            return FoundRow(is_cached=is_cached)
        assert isinstance(row, bytes)
        header = check_row(row)
        start = int.from_bytes(row[_TILES_AT : _TILES_AT + 4], "little")
        return FoundRow(
            row=row,
            header=header,
            tile_map=row[start:-_CHECKSUM_BYTES] if start else None,
            is_cached=is_cached,
            is_drained=self._is_drained(key, number, header),
            source=self._selector.source_name(header.source_id),
        )

    def _is_drained(self, key: bytes, number: int, header: RowHeader) -> bool:
        shard, view = self._shards[number], self._catalogue.view_of_id(view_id_of(key))
        if shard.row_log is None or header.partition != number or view is None or not view.definition.offline:
            return False
        return shard.row_log.status().acknowledged >= LogPosition(shard.status().epoch, header.offset + 1)


class _Tree:
    """A feature and all that its expression reads, down to what is stored."""

    def __init__(self, selector: Selector, root: AnyColumn, has_request_data: bool) -> None:
        self._selector = selector
        self._has_request_data = has_request_data
        self._inputs: dict[tuple[str, tuple[str, ...]], list[AnyColumn]] = {}
        self.columns: list[AnyColumn] = []
        self._add(root)

    def inputs(self, column: AnyColumn) -> Sequence[AnyColumn]:
        """What the expression of a column reads."""
        return self._inputs[identity(column)]

    def is_computed(self, column: AnyColumn) -> bool:
        """Whether all that it takes is there: without request data, what needs some is not."""
        if self._has_request_data or isinstance(column, SelectedColumn):
            return True
        return not self._selector.request_fields(column) and all(map(self.is_computed, self.inputs(column)))

    def _add(self, column: AnyColumn) -> None:
        if identity(column) in self._inputs:
            return
        if len(self.columns) == INPUT_COUNT_MAX:
            raise InvalidArgument(
                f"the feature reads over {INPUT_COUNT_MAX} others; explain one of these", reason="TOO_MANY_FEATURES",
                field="feature",
            )  # fmt: skip
        found = self._selector.inputs(column)
        self._inputs[identity(column)] = found
        self.columns.append(column)
        for below in found:
            self._add(below)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Puts together what one read has found."""

    selector: Selector
    keys: Mapping[str, KeyPart | None]
    rows: _Rows
    statuses: Mapping[tuple[str, tuple[str, ...]], Answered]
    read_time_us: int
    shards: ShardSet
    catalogue: Catalogue

    def explained(self, tree: _Tree, column: AnyColumn) -> ExplainedFeature:
        """One feature and those below it."""
        inputs = [self.explained(tree, below) for below in tree.inputs(column)]
        place, found, window = None, None, None
        if isinstance(column, SelectedColumn):
            place = self._place(column)
            if place is not None:
                found = self.rows.found(place.storage_key, place.shard)
                window = self._window(column, found)
        answered = self.statuses.get(identity(column))
        read = Read(self.read_time_us, place, found, window, inputs, self.selector.request_fields(column))
        others: Sequence[str] = ()
        if isinstance(column, SelectedColumn) and found is not None and found.row is None and not found.problem:
            others = self._others(column)
        return ExplainedFeature(
            column=column,
            transform=transform_of(column),
            answered=answered,
            reasons=reasons_of(column, answered, read, others),
            place=place,
            found=found,
            window=window,
            inputs=inputs,
            request_fields=read.request_fields,
        )

    def _place(self, column: SelectedColumn) -> Place | None:
        parts = [self.keys[name] for name in column.key_columns]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return None
        key = encode_key(column.view.entity.key_types, whole)  # the read has checked it
        slot = slot_of_key(key)
        number = shard_of_slot(slot, len(self.shards))
        stored = storage_key(column.view.entity.entity_id, key, column.view.view_id)
        return Place(stored, slot, number, self.shards[number].state)

    def _window(self, column: SelectedColumn, found: FoundRow) -> WindowFacts | None:
        transform = column.view.definition.features[column.place].transform
        if not isinstance(transform, Window) or column.view.computed is None or found.problem:
            return None
        kernel = column.view.computed.windows
        assert kernel is not None, "a view with a window has their kernel"
        windows = [one for one in column.view.definition.features if isinstance(one.transform, Window)]
        place = [one.name for one in windows].index(column.feature)
        if found.tile_map is not None:
            kernel.check_map(found.tile_map)
        folded = kernel.fold(found.tile_map, self.read_time_us)
        span = kernel.plan.spans[kernel.plan.features[place].span]
        tiles = folded_window(kernel.plan, found.tile_map, place, self.read_time_us)
        return WindowFacts(tiles, span.window_us, span.hop_us, folded.losses[place], folded.is_exact)

    def _others(self, column: SelectedColumn) -> Sequence[str]:
        """Versions and views of the entity that do have a row."""
        return list(self._with_rows(column))

    def _with_rows(self, column: SelectedColumn) -> Iterator[str]:
        for view in self.catalogue.views_of_entity(column.view.entity.name):
            place = self._place(SelectedColumn("", view, column.feature, column.key_columns))
            if view.view_id == column.view.view_id or place is None:
                continue
            found = self.rows.found(place.storage_key, place.shard)
            if found.row is not None and not found.is_erased:
                yield view.ref


def identity(column: AnyColumn) -> tuple[str, tuple[str, ...]]:
    """Equal for columns of one value."""
    return column.reference, column.key_columns


def _statuses(answer: bytes, columns: Sequence[AnyColumn]) -> dict[tuple[str, tuple[str, ...]], Answered]:
    parsed = Answer(answer)
    found = {}
    for position, column in enumerate(columns):
        start, _ = parsed.place(position, STATUSES)
        found[identity(column)] = Answered(position, parsed.blocks[start])
    return found


def _check_keys(root: AnyColumn, keys: Mapping[str, object]) -> None:
    wanted = set(root.key_columns)
    if wanted == set(keys):
        return
    missing, unknown = sorted(wanted - set(keys)), sorted(set(keys) - wanted)
    what = f"join key {missing[0]!r} is missing" if missing else f"{unknown[0]!r} is no join key of it"
    raise InvalidArgument(
        f"{root.reference} is read by {', '.join(root.key_columns)}: {what}",
        reason="MISSING_JOIN_KEY" if missing else "UNKNOWN_JOIN_KEY",
        field="entity_columns",
        metadata={"join_keys": ",".join(root.key_columns)},
    )
