"""Kinds as people type them."""

import pytest

from control_plane.cli.kinds import parse_kind
from headrace.definitions import DefinitionKind
from headrace.errors import InvalidArgument


@pytest.mark.parametrize("text", ["view", "views", "View", "feature_view", "feature-views"])
def test_every_spelling_of_a_kind_is_known(text: str) -> None:
    assert parse_kind(text) is DefinitionKind.FEATURE_VIEW


@pytest.mark.parametrize("text", ["on_demand_view", "on-demand-views"])
def test_every_spelling_of_an_on_demand_view_is_known(text: str) -> None:
    assert parse_kind(text) is DefinitionKind.ON_DEMAND_VIEW


@pytest.mark.parametrize("text", ["entity", "entities"])
def test_plural_that_is_not_regular(text: str) -> None:
    assert parse_kind(text) is DefinitionKind.ENTITY


@pytest.mark.parametrize("text", ["", "viewz", "feature_"])
def test_unknown_kind_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InvalidArgument, match="source, entity, view, on_demand_view, service, model"):
        parse_kind(text)
