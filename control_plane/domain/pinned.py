"""Resolves what definitions refer to: the views that services, on-demand views and lookups read."""

from control_plane.domain.draft import Draft
from control_plane.domain.verdicts import Problem
from headrace.definitions.registered import RegisteredOnDemandView, RegisteredView, State, select
from headrace.definitions.services import ServiceEntry


def active_version(
    draft: Draft, path: str, entry: ServiceEntry, problems: list[Problem]
) -> RegisteredView | RegisteredOnDemandView | None:
    """The view or on-demand view of an entry, or None and the problem added."""
    ref = entry.view
    stored, computed = draft.views(ref.name), draft.on_demand_views(ref.name)
    if not (stored or computed) or ref.name in draft.refused:
        problems.append(unknown(draft, f"{path}.feature_view", ref.name, "feature view"))
        return None
    view = select(stored, ref.version) or select(computed, ref.version)
    if view is not None and view.state is State.ACTIVE:
        return view
    newest = f"; its newest is v{max(len(stored), len(computed))}"
    if view is None and ref.version:
        problem = Problem("UNKNOWN_REFERENCE", f"{path}.feature_view", f"{ref} is not registered{newest}")
    else:
        problem = Problem("RETIRED_REFERENCE", f"{path}.feature_view", f"{ref} is retired; pin an active version")
    problems.append(problem)
    return None


def unknown(draft: Draft, field: str, name: str, what: str) -> Problem:
    """A reference to a name that is not registered as this kind."""
    if name in draft.refused:
        return Problem("UNKNOWN_REFERENCE", field, f"{what} {name!r} is itself refused in this set")
    kind = draft.kind(name)
    is_else = f", it is a {kind.label}" if kind else "; add it to the set or correct the name"
    return Problem("UNKNOWN_REFERENCE", field, f"no {what} {name!r} is registered{is_else}")
