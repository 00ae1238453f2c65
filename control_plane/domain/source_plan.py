"""Plans sources."""

from dataclasses import replace

from control_plane.domain.differences import changed, common_differences, counted
from control_plane.domain.draft import Draft
from control_plane.domain.verdicts import (
    Problem,
    Verdict,
    created,
    incompatible,
    refused,
    unchanged,
    updated,
)
from headrace.definitions.registered import RegisteredSource, RegisteredView, State
from headrace.definitions.sources import Source, SourceKind
from headrace.definitions.transform import added_names, source_columns
from headrace.errors import InvalidArgument
from headrace.sql_select import check_select, has_engine


def plan_source(draft: Draft, wanted: Source) -> Verdict:
    """Decides about one source. It has no versions: what no view uses may change, what a view uses may not."""
    current = draft.source(wanted.name)
    if current is None:
        wrong, notes = _query_problems(wanted)
        if wrong:
            return refused(0, wrong)
        draft.put(RegisteredSource(wanted, draft.first_stamp(wanted.name), draft.take_id()))
        summary = f"source of kind {wanted.kind.name.lower()} with {counted(len(wanted.columns), 'column')}"
        return created(0, summary, *notes)
    wrong, _ = _query_problems(wanted)
    problems = [*wrong, *_problems(draft, current.definition, wanted)]
    if problems:
        return refused(0, problems)
    details = _differences(current.definition, wanted)
    if not details:
        return unchanged(0)
    stamp = draft.touched_stamp(wanted.name, current.stamp)
    draft.put(replace(current, definition=wanted, stamp=stamp))
    return updated(0, details)


def _query_problems(wanted: Source) -> tuple[list[Problem], list[str]]:
    """What is wrong with a SELECT, and notes for people."""
    if wanted.kind is not SourceKind.SQL:
        return [], []
    if not has_engine():
        return [], ["its SELECT is not checked here, where DuckDB is not installed"]
    try:
        check_select(wanted.query, wanted.inputs)
    except InvalidArgument as error:
        return [Problem(error.reason, error.field, error.message)], []
    return [], []


def _problems(draft: Draft, old: Source, new: Source) -> list[Problem]:
    users = [view for view in draft.all_views() if _reads(view, new.name)]
    if not users:
        return []
    readers = _names(users)
    problems = []
    if old.kind is not new.kind:
        kinds = f"{old.kind.name.lower()} to {new.kind.name.lower()}"
        problems.append(incompatible("kind", f"kind changes from {kinds}, and {readers} read it"))
    if old.event_time_column != new.event_time_column:
        what = f"event time column changes from {old.event_time_column!r} to {new.event_time_column!r}"
        problems.append(incompatible("event_time_column", f"{what}, and {readers} read it"))
    if SourceKind.STREAM in {old.kind, new.kind} and old.uri.partition("?")[0] != new.uri.partition("?")[0]:
        what = f"the topic changes from {old.uri!r} to {new.uri!r}, whose offsets are others"
        problems.append(incompatible("uri", f"{what}, and {readers} read it"))
    if old.query.strip() != new.query.strip():
        problems.append(incompatible("query", f"query changes, and {readers} read it"))
    return [*problems, *_column_problems(users, old, new)]


def _column_problems(users: list[RegisteredView], old: Source, new: Source) -> list[Problem]:
    problems = _clashes(users, old, new)
    for column in old.columns:
        readers = [view for view in users if _uses(view, column.name)]
        now = new.column(column.name)
        if not readers or (now and now.type == column.type):
            continue
        what = f"changes its type from {column.type} to {now.type}" if now else "is removed"
        problems.append(incompatible("columns", f"column {column.name!r} {what}, and is in use by {_names(readers)}"))
    return problems


def _clashes(users: list[RegisteredView], old: Source, new: Source) -> list[Problem]:
    """New columns with the names of columns that views add."""
    problems = []
    for index, column in enumerate(new.columns):
        looking = [view for view in users if column.name in added_names(view.definition)]
        if old.column(column.name) is None and looking:
            message = f"column {column.name!r} has the name of what {_names(looking)} adds to its events; rename it"
            problems.append(Problem("DUPLICATE_NAME", f"columns[{index}].name", message))
    return problems


def _differences(old: Source, new: Source) -> list[str]:
    before = {column.name: column.type for column in old.columns}
    after = {column.name: column.type for column in new.columns}
    columns = [
        *(f"column {name!r} of type {after[name]} is added" for name in after if name not in before),
        *(f"column {name!r} is removed" for name in before if name not in after),
        *(
            sentence
            for name in after
            if name in before
            for sentence in changed(f"type of column {name!r}", str(before[name]), str(after[name]))
        ),
    ]
    if not columns and list(before) != list(after):
        columns = ["columns change their order"]
    return [
        *common_differences(old, new),
        *changed("kind", old.kind.name.lower(), new.kind.name.lower()),
        *changed("uri", old.uri, new.uri),
        *([] if old.query == new.query else ["query changes"]),
        *changed("inputs", dict(old.inputs), dict(new.inputs)),
        *changed("event time column", old.event_time_column, new.event_time_column),
        *changed("availability delay", old.availability_delay, new.availability_delay),
        *columns,
    ]


def _reads(view: RegisteredView, source: str) -> bool:
    return view.state is State.ACTIVE and view.definition.source == source


def _uses(view: RegisteredView, column: str) -> bool:
    return column in source_columns(view.definition)


def _names(views: list[RegisteredView]) -> str:
    return ", ".join(str(view.ref) for view in views)
