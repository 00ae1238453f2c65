"""Lineage: each method takes the principal, asks for its permission first, and answers one question."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from control_plane.domain.lineage import nodes
from control_plane.domain.lineage.changes import Upstream
from control_plane.domain.lineage.impact import Impact
from control_plane.domain.lineage.mirror import NOW_US, Mirror, Moment
from control_plane.domain.lineage.nodes import owning_name
from control_plane.domain.lineage.observed import checked_run, run_edges
from control_plane.domain.lineage.requirements import Requirements
from control_plane.domain.lineage.storage import LineageStore
from control_plane.domain.lineage.times import time_us
from control_plane.domain.lineage.tokens import read_token, write_token
from control_plane.domain.pages import page_size_of
from control_plane.domain.storage import RegistryStore, Revision
from headrace.definitions.checks import suggestion
from headrace.definitions.registered import RegistryState, all_records, named
from headrace.errors import InvalidArgument, NotFound
from headrace.lineage.values import (
    NAME_LENGTH_MAX,
    Impacted,
    Node,
    NodeChange,
    NodeKind,
    Requirement,
    Run,
    Total,
    UpstreamChange,
)
from headrace.names import VersionRef
from headrace.serving.principal import Principal

READ: Final = "REGISTRY_READ"
WRITE: Final = "LINEAGE_WRITE"
KEPT_NODES_MAX: Final = 8_000_000  # of answers kept between pages, 17 bytes each
KEPT_COUNT_MAX: Final = 16
_REVISIONS: Final = 1_000  # read at a time
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ImpactQuestion:
    """What is asked; without a time as of now, without kinds all of them."""

    node: str
    column: str = ""
    change: NodeChange = NodeChange.ANY
    as_of_us: int | None = None
    kinds: frozenset[NodeKind] = frozenset()

    @property
    def key(self) -> tuple[object, ...]:
        """What the pages of one question share."""
        return (self.node, self.column, int(self.change), self.as_of_us, sorted(self.kinds))


@dataclass(frozen=True, slots=True)
class ImpactPage:
    """A page of the nodes that are reached, and the totals of all of them."""

    start: Node
    items: tuple[Impacted, ...]
    totals: tuple[Total, ...]
    moment: Moment
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Listing(Generic[_Item]):
    """A page of a list about one node, and how many items it has in all."""

    start: Node
    items: Sequence[_Item]
    count: int
    next_page_token: str


class Lineage:
    """Answers from the mirror of the log; the registry names owners and newest versions."""

    def __init__(
        self, store: LineageStore, registry: RegistryStore, mirror: Mirror, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._registry = registry
        self._mirror = mirror
        self._clock = clock
        self._kept = _Kept()

    def start(self) -> None:
        """Appends what an older release registered without a log, and builds the mirror."""
        self._store.catch_up(self._registry.read(), self._now_us())
        self._mirror.refresh()

    def impact(
        self, principal: Principal, question: ImpactQuestion, page_size: int = 0, page_token: str = ""
    ) -> ImpactPage:
        """A page of what a node reaches, in the order of hops; every page is of the moment of the first."""
        principal.require(READ)
        size, (moment, position) = page_size_of(page_size), self._begin(question.key, question.as_of_us, page_token)
        state = self._registry.read()
        number = self._find(question.node, question.column, state)
        impact = self._kept.get((number, moment), lambda: Impact(self._mirror, [number], moment))
        positions, following = impact.positions(question.kinds, position, size)
        owners = Owners(state)
        items = impact.rows(positions, question.change, owners.of, lambda edges: dict(self._store.details(edges)))
        token = write_token(question.key, moment, following) if following else ""
        return ImpactPage(self._mirror.node(number), tuple(items), tuple(impact.totals()), moment, token)

    def changes(
        self,
        principal: Principal,
        name: str,
        column: str,
        times_us: tuple[int, int | None],
        page: tuple[int, str] = (0, ""),
    ) -> Listing[UpstreamChange]:
        """A page of what changed above a node between two times; without the second until now."""
        principal.require(READ)
        before_us, after_us = times_us
        if after_us is not None and after_us < before_us:
            raise InvalidArgument(
                "end_time lies before start_time; exchange them", reason="OUT_OF_RANGE", field="end_time"
            )
        question = ("changes", name, column, before_us, after_us)
        until_us = self._now_us() if after_us is None else after_us  # pages go on with that of the first
        size, (moment, position) = page_size_of(page[0]), self._begin(question, until_us, page[1])
        state = self._registry.read()
        number = self._find(name, column, state)
        revisions = self._revisions(before_us, moment.valid_us)
        upstream = Upstream(self._mirror, self._store, Owners(state).of)
        found = upstream.changes(number, Moment(before_us, moment.known_us), moment, revisions)
        items = upstream.page(found, position, size)
        following = position + len(items)
        token = write_token(question, moment, following) if following < len(found) else ""
        return Listing(self._mirror.node(number), items, len(found), token)

    def requirements(
        self, principal: Principal, name: str, page_size: int = 0, page_token: str = ""
    ) -> Listing[Requirement]:
        """A page of what a model was made of."""
        principal.require(READ)
        question = ("requirements", name)
        size, (moment, position) = page_size_of(page_size), self._begin(question, None, page_token)
        state = self._registry.read()
        number = self._find(name, "", state)
        found = Requirements(self._mirror, self._store, state, Owners(state).of).above(number, moment)
        items = found[position : position + size]
        token = write_token(question, moment, position + size) if position + size < len(found) else ""
        return Listing(self._mirror.node(number), items, len(found), token)

    def record_run(self, principal: Principal, run: Run) -> bool:
        """Keeps a run of a job and the edges that it shows; False where it is known already."""
        principal.require(WRITE)
        checked = checked_run(run)
        self._mirror.refresh()
        change = run_edges(checked, self._definitions(checked))
        return self._store.record_run(checked, change, self._now_us())

    def _begin(self, question: tuple[object, ...], as_of_us: int | None, token: str) -> tuple[Moment, int]:
        """Moment and first position of a page."""
        self._mirror.refresh()
        return read_token(question, token) if token else (self._moment(as_of_us), 0)

    def _revisions(self, after_us: int, until_us: int) -> Iterator[Revision]:
        """Revisions of the registry after one time, up to another."""
        number = 0
        while found := self._registry.revisions(number, _REVISIONS):
            number = found[-1].number
            for revision in found:
                if after_us < time_us(revision.time) <= until_us:
                    yield revision

    def _definitions(self, run: Run) -> dict[str, NodeKind]:
        """Kinds of the data of a run that are definitions, by their texts."""
        found = {}
        for data in (*run.inputs, *run.outputs):
            number = self._mirror.number(data.name)
            if number is not None:
                found[data.name] = self._mirror.node(number).kind
        return found

    def _moment(self, as_of_us: int | None) -> Moment:
        known_us = self._mirror.newest_known_us  # pages are of this moment, whatever is appended between them
        return Moment(NOW_US if as_of_us is None else as_of_us, known_us)

    def _find(self, text: str, column: str, state: RegistryState) -> int:
        """Number of a node; a name without a version means its newest that is not retired."""
        if not text:
            raise InvalidArgument("name is empty; say which node", reason="REQUIRED", field="name")
        _check_text(text, "name")
        _check_text(column, "column")
        name = text if not column else nodes.column(text, column).name
        number = self._mirror.number(name)
        if number is None and not column:
            number = self._mirror.number(str(_newest(text, state)))
        if number is None:
            raise self._unknown(text, column, state)
        return number

    def _unknown(self, text: str, column: str, state: RegistryState) -> NotFound:
        source = state.sources.get(text)
        if column and source is not None:
            known = [one.name for one in source.definition.columns]
            message = f"source {text!r} has no column {column!r}"
        else:
            known = [str(record.ref) for record in all_records(state)]
            message = f"lineage knows no {'source' if column else 'node'} {text!r}"
        return NotFound(
            message + (suggestion(column or text, known) or "; see 'headrace list source' for names"),
            reason="UNKNOWN_NODE",
            field="column" if column else "name",
        )

    def _now_us(self) -> int:
        return time_us(self._clock())


class Owners:
    """Who is to be told of a change of a node: the owner of its definition now."""

    def __init__(self, state: RegistryState) -> None:
        self._state = state

    def of(self, node: Node) -> str:
        """Owner of a node; empty for what no definition makes."""
        name = owning_name(node)
        records = named(self._state, name) if name else ()
        return records[-1].definition.owner if records else ""


class _Kept:
    """Answers to the newest questions, so that their next pages need no walk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[int, Moment], Impact] = OrderedDict()

    def get(self, key: tuple[int, Moment], make: Callable[[], Impact]) -> Impact:
        """The answer kept, or made and kept."""
        with self._lock:
            held = self._answers.get(key)
            if held is not None:
                self._answers.move_to_end(key)
                return held
        made = make()
        with self._lock:
            self._answers[key] = made
            while len(self._answers) > 1 and self._is_over():
                self._answers.popitem(last=False)
        return made

    def _is_over(self) -> bool:
        nodes_kept = sum(answer.node_count for answer in self._answers.values())
        return len(self._answers) > KEPT_COUNT_MAX or nodes_kept > KEPT_NODES_MAX


def _newest(name: str, state: RegistryState) -> VersionRef:
    ref = VersionRef(name)
    record = state.view(ref) or state.on_demand_view(ref) or state.service(ref) or state.model(ref)
    return ref if record is None else record.ref


def _check_text(text: str, field: str) -> None:
    if len(text) > NAME_LENGTH_MAX or not text.isprintable():
        raise InvalidArgument(
            f"{field} is no name: it is printable and has at most {NAME_LENGTH_MAX} characters",
            reason="INVALID_NAME",
            field=field,
        )
