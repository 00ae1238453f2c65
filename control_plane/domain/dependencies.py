"""Order and cycles of views that read one another: on-demand views over their sources, and lookups."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter

from control_plane.domain.verdicts import Problem
from headrace.definitions.base import Definition
from headrace.definitions.on_demand import OnDemandView
from headrace.definitions.views import FeatureView
from headrace.names import VersionRef

Reader = FeatureView | OnDemandView


def dependency_order(located: Iterable[tuple[str, Definition]]) -> list[tuple[str, Definition]]:
    """The definitions with each view after those of its kind that it reads; those in a cycle come last."""
    given = list(located)
    ordered = {kind: iter(_in_order(given, kind)) for kind in (FeatureView, OnDemandView)}
    return [next(ordered[type(item)]) if isinstance(item, Reader) else (path, item) for path, item in given]


def cycle_problems(located: Iterable[tuple[str, Definition]]) -> dict[str, Problem]:
    """Why the views of a set that read themselves are refused, by name."""
    views = {item.name: item for _, item in located if isinstance(item, Reader)}
    ways = {name: _way_back(name, views) for name in views}
    return {name: _cycle(views[name], way) for name, way in ways.items() if way}


def registered_cycle(pinned: Reader, read_by: Callable[[VersionRef], Iterable[VersionRef]]) -> list[Problem]:
    """A version below reads an older version of the same name: pinned, but a change would go round for ever."""
    ways: list[tuple[tuple[str, ...], VersionRef]] = [((pinned.name, ref.name), ref) for ref in _reads(pinned)]
    seen: set[VersionRef] = set()
    while ways:
        way, ref = ways.pop()
        if ref.name == pinned.name:
            return [_cycle(pinned, way)]
        if ref not in seen:
            seen.add(ref)
            ways += [((*way, below.name), below) for below in read_by(ref)]
    return []


def _in_order(given: Sequence[tuple[str, Definition]], kind: type[Reader]) -> list[tuple[str, Definition]]:
    views = {item.name: (path, item) for path, item in given if isinstance(item, kind)}
    sorter = TopologicalSorter(
        {name: {ref.name for ref in _reads(item)} & views.keys() for name, (_, item) in views.items()}
    )
    ordered: list[str] = []
    with suppress(CycleError):
        sorter.prepare()
    while ready := sorter.get_ready():
        ordered += ready
        sorter.done(*ready)
    return [views[name] for name in dict.fromkeys([*ordered, *views])]


def _cycle(view: Reader, way: Sequence[str]) -> Problem:
    field = "lookups" if isinstance(view, FeatureView) else "sources"
    message = f"{way[0]!r} reads itself: {' reads '.join(way)}; leave one of these {field} out"
    return Problem("CYCLE", field, message)


def _way_back(start: str, views: Mapping[str, Reader]) -> tuple[str, ...]:
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for name in sorted({ref.name for ref in _reads(views[way[-1]])}):
            if name == start:
                return (*way, start)
            if name in views and name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return ()


def _reads(view: Reader) -> list[VersionRef]:
    return [entry.view for entry in (view.lookups if isinstance(view, FeatureView) else view.entries)]
