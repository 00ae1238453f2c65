"""Commands on definitions: plan, apply, get, list, describe, retire."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from control_plane.cli.function_commands import FunctionCost, function_costs, print_costs
from control_plane.cli.kinds import HEADER, parse_kind, record_document, record_row
from control_plane.cli.output import Format, plain, print_document, print_table
from control_plane.cli.session import Session
from headrace.client import Client, Plan
from headrace.definitions import Change, ChangeKind, DefinitionSet, FeatureView, OnDemandView, load
from headrace.errors import FailedPrecondition, NotFound, PeerError, Unavailable
from headrace.names import VersionRef

SERVING_LIMIT_S: Final = 15.0  # a feature server watches the registry and knows a change within milliseconds
_POLL_INTERVAL_S: Final = 0.02
_SIGNS: Final = {
    ChangeKind.UNCHANGED: "=",
    ChangeKind.CREATE: "+",
    ChangeKind.NEW_VERSION: "+",
    ChangeKind.UPDATE: "~",
    ChangeKind.REFUSED: "!",
}


def plan(session: Session, path: Path) -> None:
    """Prints the changes; a refused one makes the exit code 1."""
    definitions = load(path)
    with session.registry() as registry:
        planned = registry.plan(definitions)
        costs = function_costs(definitions, registry, _folder_of(path))
    _print_changes(session, planned, costs, is_applied=False)
    _refuse(planned)


def apply(session: Session, path: Path) -> None:
    """Prints the changes, makes them, and waits until the feature server serves them."""
    definitions = load(path)
    with session.registry() as registry:
        planned = registry.plan(definitions)
        costs = function_costs(definitions, registry, _folder_of(path))
        _refuse_with_changes(session, planned, costs)
        done = registry.apply(definitions, base_revision=planned.registry_revision)
    if session.endpoints().features:
        with session.features() as features:
            await_served(features, definitions, done)
    _print_changes(session, done, costs, is_applied=True)


def get(session: Session, kind: str, name: str) -> None:
    """Prints one definition as a line or a document."""
    with session.registry() as registry:
        record = registry.get(parse_kind(kind), name)
    if session.form is Format.TABLE:
        print_table(HEADER, [record_row(record)], session.out)
    else:
        print_document(record_document(record), session.form, session.out)


def list_definitions(session: Session, kind: str, prefix: str) -> None:
    """Prints all definitions of a kind."""
    with session.registry() as registry:
        records = list(registry.list(parse_kind(kind), prefix))
    if session.form is Format.TABLE:
        print_table(HEADER, [record_row(record) for record in records], session.out)
    else:
        print_document([record_document(record) for record in records], session.form, session.out)


def describe(session: Session, kind: str, name: str) -> None:
    """Prints one definition in full, lists as tables."""
    with session.registry() as registry:
        fields = record_document(registry.get(parse_kind(kind), name))
    if session.form is not Format.TABLE:
        print_document(fields, session.form, session.out)
        return
    tables = {field: value for field, value in fields.items() if isinstance(value, list)}
    rows = [(field, _text(value)) for field, value in fields.items() if field not in tables]
    print_table(("field", "value"), rows, session.out)
    for field, items in tables.items():
        header = list(dict.fromkeys(key for item in items for key in item))
        session.out.write(f"\n{field}\n")
        print_table(header, [[_text(item.get(key)) for key in header] for item in items], session.out)


def retire(session: Session, kind: str, name: str) -> None:
    """Retires one version."""
    with session.registry() as registry:
        revision = registry.retire(parse_kind(kind), name)
    if session.form is Format.TABLE:
        session.out.write(f"retired {name} (registry revision {revision})\n")
    else:
        print_document({"retired": name, "registry_revision": revision}, session.form, session.out)


def await_served(client: Client, definitions: DefinitionSet, applied: Plan, limit_s: float = SERVING_LIMIT_S) -> None:
    """Returns when the feature server resolves a feature or a service at the applied revision; raises Unavailable else.

    Sets without either, of entities and sources, change nothing that a feature server answers.
    """
    versions = {change.name: change.version for change in applied.changes}
    views: list[FeatureView | OnDemandView] = [*definitions.feature_views, *definitions.on_demand_views]
    services = [str(VersionRef(service.name, versions[service.name])) for service in definitions.feature_services]
    features = [f"{VersionRef(view.name, versions[view.name])}:{view.features[0].name}" for view in views]
    asked, is_service = [*features, *services][:1], not features
    deadline = time.monotonic() + limit_s
    while asked and not _serves(client, asked[0], applied.registry_revision, is_service=is_service):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the changes are made, but the feature server does not know them after {limit_s:.0f} s; "
                "look into its log",
                reason="NOT_SERVED_YET",
                metadata={"service" if is_service else "feature": asked[0]},
            )
        time.sleep(_POLL_INTERVAL_S)


def _serves(client: Client, name: str, revision: int, *, is_service: bool) -> bool:
    try:
        prepared = client.prepare(name) if is_service else client.prepare(features=[name])
    except (NotFound, FailedPrecondition, PeerError):
        return False
    return prepared.registry_revision >= revision


def _refuse(planned: Plan) -> None:
    refused = [change for change in planned.changes if change.change_kind is ChangeKind.REFUSED]
    if refused:
        first = refused[0]
        raise FailedPrecondition(
            f"{len(refused)} of {len(planned.changes)} changes are refused, first {first.name}: "
            f"{'; '.join(first.details)}",
            reason="CHANGE_REFUSED",
            field=first.name,
            metadata={"name": first.name},
        )


def _refuse_with_changes(session: Session, planned: Plan, costs: Sequence[FunctionCost]) -> None:
    if any(change.change_kind is ChangeKind.REFUSED for change in planned.changes):
        _print_changes(session, planned, costs, is_applied=False)
    _refuse(planned)


def _folder_of(path: Path) -> Path:
    return (path if path.is_dir() else path.parent).resolve()


def _print_changes(session: Session, planned: Plan, costs: Sequence[FunctionCost], *, is_applied: bool) -> None:
    if session.form is not Format.TABLE:
        changes = [_change_document(change) for change in planned.changes]
        fields = {"changes": changes, "registry_revision": planned.registry_revision, "applied": is_applied}
        if costs:
            fields["functions"] = [cost.document for cost in costs]
        print_document(fields, session.form, session.out)
        return
    moving = [change for change in planned.changes if change.change_kind is not ChangeKind.UNCHANGED]
    if moving:
        print_table(("", "change", "kind", "name", "details"), [_change_row(change) for change in moving], session.out)
    print_costs(session, costs)
    count = sum(change.change_kind is not ChangeKind.REFUSED for change in moving)
    done = "made" if is_applied else "to make"
    kept = len(planned.changes) - len(moving)
    session.out.write(
        f"{count} changes {done}, {kept} definitions unchanged (registry revision {planned.registry_revision})\n"
    )


def _change_row(change: Change) -> tuple[str, ...]:
    kind = change.change_kind.name.lower().replace("_", " ")
    ref = str(VersionRef(change.name, change.version))
    return (_SIGNS[change.change_kind], kind, change.definition_kind.label, ref, "; ".join(change.details))


def _change_document(change: Change) -> dict[str, Any]:
    return {
        "change": change.change_kind.name.lower(),
        "kind": change.definition_kind.name.lower(),
        "name": change.name,
        "version": change.version,
        "details": list(change.details),
    }


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(plain(value))
