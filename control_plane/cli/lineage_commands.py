"""What `headrace lineage` prints."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.cli.amounts import parse_time_us, time_text
from control_plane.cli.lineage_choices import Affected, Planned
from control_plane.cli.output import Document, Format, print_document, print_table
from control_plane.cli.session import Session
from control_plane.cli.worker import run_job
from headrace.client.lineage import ImpactPage
from headrace.lineage.values import (
    Impacted,
    NodeChange,
    NodeKind,
    PathStep,
    Requirement,
    Total,
    UpstreamChange,
)

EXIT_DONE: Final = 0
EXIT_REACHED: Final = 1
EXIT_MISSING: Final = 1
_MISSING: Final = "missing"
_REGISTERED: Final = {True: "known", False: _MISSING}
_FOUND: Final = {True: "there", False: _MISSING, None: "not checked"}
_CHECKED: Final = {
    NodeKind.SNAPSHOT: "snapshots",
    NodeKind.DATASET: "datasets",
    NodeKind.TRAINING_SET: "training_sets",
}
_KINDS: Final = {
    Affected.FEATURES: frozenset({NodeKind.FEATURE}),
    Affected.VIEWS: frozenset({NodeKind.FEATURE_VIEW, NodeKind.ON_DEMAND_VIEW}),
    Affected.SERVICES: frozenset({NodeKind.FEATURE_SERVICE}),
    Affected.MODELS: frozenset({NodeKind.MODEL}),
    Affected.RUNS: frozenset({NodeKind.RUN}),
    Affected.TRAINING_SETS: frozenset({NodeKind.TRAINING_SET}),
    Affected.ANY: frozenset(NodeKind),
}
_CHANGES: Final = {
    None: (NodeChange.ANY, "changes"),
    Planned.DROP: (NodeChange.DROP, "is dropped"),
    Planned.RENAME: (NodeChange.RENAME, "is renamed"),
    Planned.RETYPE: (NodeChange.RETYPE, "changes its type"),
}


@dataclass(frozen=True, slots=True)
class ImpactOptions:
    """What a person asks."""

    node: str
    column: str = ""
    as_of: str | None = None
    change: Planned | None = None
    kinds: tuple[Affected, ...] = ()
    fail_on: tuple[Affected, ...] = ()


def impact(session: Session, options: ImpactOptions) -> int:
    """Prints all that a node reaches; 1 where it reaches a kind to fail on, else 0."""
    as_of_us = parse_time_us(options.as_of, "--as-of") if options.as_of is not None else None
    with session.lineage() as client:
        pages = client.impact(
            options.node,
            options.column,
            change=_CHANGES[options.change][0],
            as_of_us=as_of_us,
            kinds=_nodes_of(options.kinds),
        )
        first = next(pages)
        if session.form is Format.TABLE:
            _print_impact(session, options, first, pages)
        else:
            print_document(_document(options, first, pages, as_of_us), session.form, session.out)
    failing = _nodes_of(options.fail_on)
    return EXIT_REACHED if any(total.kind in failing for total in first.totals) else EXIT_DONE


def diff(session: Session, node: str, column: str, start: str, end: str | None) -> None:
    """Prints what changed above a node between two times."""
    start_us = parse_time_us(start, "--from")
    end_us = None if end is None else parse_time_us(end, "--to")
    with session.lineage() as client:
        found = list(client.changes(node, column, start_us=start_us, end_us=end_us))
    if session.form is not Format.TABLE:
        print_document({"node": node, "changes": [_change(one) for one in found]}, session.form, session.out)
        return
    if not found:
        session.out.write(f"nothing changed above {node}\n")
        return
    rows = [(one.hop_count, one.kind.name.lower(), time_text(one.time_us), one.owner or "-", one.text) for one in found]
    print_table(("hop", "change", "when", "owner", "what"), rows, session.out)


def requirements(session: Session, model: str, *, verify: bool) -> int:
    """Prints what a model was made of; with `verify` 1 where a part is not there any more, else 0."""
    with session.lineage() as client:
        found = list(client.requirements(model))
    states = {one.node.name: _REGISTERED[one.exists] for one in found}
    if verify:
        states |= _checked(session, found)
    if session.form is not Format.TABLE:
        parts = [_requirement(one, states[one.node.name]) for one in found]
        print_document({"node": model, "requirements": parts}, session.form, session.out)
    else:
        rows = [
            (
                one.node.name,
                one.node.kind.label,
                one.hop_count,
                one.owner or "-",
                states[one.node.name],
                one.digest[:12] or "-",
                one.detail or "-",
            )
            for one in found
        ]
        header = ("node", "kind", "hop", "owner", "state", "digest", "detail")
        print_table(header, rows, session.out)
    return EXIT_MISSING if _MISSING in states.values() else EXIT_DONE


def _checked(session: Session, found: Sequence[Requirement]) -> dict[str, str]:
    """States of what only the offline store and the file systems know."""
    names: dict[NodeKind, list[str]] = {kind: [] for kind in _CHECKED}
    for one in found:
        if one.node.kind in names:
            names[one.node.kind].append(one.node.name.partition(":")[2])
    arguments = {_CHECKED[kind]: texts for kind, texts in names.items()}
    if not any(arguments.values()):
        return {}
    answer = run_job(session, "lineage_check", arguments, needs_registry=False)
    return {
        f"{kind.name.lower()}:{text}": _FOUND[answer[_CHECKED[kind]][text]]
        for kind, texts in names.items()
        for text in texts
    }


def _change(change: UpstreamChange) -> Document:
    return {
        "change": change.kind.name,
        "node": change.node.name,
        "kind": change.node.kind.name,
        "hop": change.hop_count,
        "time": time_text(change.time_us),
        "owner": change.owner,
        "text": change.text,
        "path": [step.node.name for step in change.path],
    }


def _requirement(one: Requirement, state: str) -> Document:
    return {
        "node": one.node.name,
        "kind": one.node.kind.name,
        "hop": one.hop_count,
        "owner": one.owner,
        "state": state,
        "digest": one.digest,
        "detail": one.detail,
    }


def _nodes_of(kinds: Sequence[Affected]) -> frozenset[NodeKind]:
    return frozenset().union(*(_KINDS[kind] for kind in kinds))


def _print_impact(session: Session, options: ImpactOptions, first: ImpactPage, pages: Iterator[ImpactPage]) -> None:
    count = sum(total.count for total in first.totals)
    hops = max((total.hop_count for total in first.totals), default=0)
    when = "now" if options.as_of is None else f"as of {options.as_of}"
    what = _CHANGES[options.change][1]
    session.out.write(f"{first.node} {what}: {count} nodes in {hops} hops, {when}\n")
    if not count:
        return
    session.out.write("\n")
    print_table(("hop", "kind", "nodes"), [_total_row(total) for total in first.totals], session.out)
    for page in _every(first, pages):
        if page.items:
            session.out.write("\n")
            print_table(("node", "kind", "hop", "owner", "effect", "path"), map_rows(page.items), session.out)


def map_rows(items: Iterable[Impacted]) -> list[tuple[object, ...]]:
    """A line per node that is reached."""
    return [
        (
            item.node.name,
            item.node.kind.label,
            item.hop_count,
            item.owner or "-",
            item.effect.name.lower(),
            path_text(item.path),
        )
        for item in items
    ]


def path_text(path: Sequence[PathStep]) -> str:
    """A path for people: `a -value-> b -serves-> c`."""
    first, *rest = path
    return first.node.name + "".join(f" -{step.kind.name.lower()}-> {step.node.name}" for step in rest if step.kind)


def _total_row(total: Total) -> tuple[object, ...]:
    return total.hop_count, total.kind.label, total.count


def _every(first: ImpactPage, pages: Iterator[ImpactPage]) -> Iterator[ImpactPage]:
    yield first
    yield from pages


def _document(options: ImpactOptions, first: ImpactPage, pages: Iterator[ImpactPage], as_of_us: int | None) -> Document:
    return {
        "node": first.node,
        "change": options.change.value if options.change else None,
        "as_of": None if as_of_us is None else time_text(as_of_us),
        "known": time_text(first.known_time_us),
        "node_count": sum(total.count for total in first.totals),
        "totals": [{"hop": total.hop_count, "kind": total.kind.name, "nodes": total.count} for total in first.totals],
        "impacted": [_item(item) for page in _every(first, pages) for item in page.items],
    }


def _item(item: Impacted) -> Document:
    return {
        "node": item.node.name,
        "kind": item.node.kind.name,
        "hop": item.hop_count,
        "owner": item.owner,
        "effect": item.effect.name,
        "path": [
            {
                "node": step.node.name,
                "kind": step.node.kind.name,
                "edge": step.kind.name if step.kind else None,
                "transform": step.transform,
            }
            for step in item.path
        ],
    }
