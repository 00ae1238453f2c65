"""An apply waits until the feature server serves what it made, whatever kind of view that is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.cli.definition_commands import await_served
from headrace.client import Client, Plan
from headrace.definitions import (
    Change,
    ChangeKind,
    DefinitionKind,
    DefinitionSet,
    Feature,
    OnDemandView,
    RequestSource,
    derived,
)
from headrace.errors import Unavailable
from tests.unit.feature_server.parts import OWNER, SERVICE, VIEW, Parts, shop_definitions, state_of

OFFER = OnDemandView(
    "shop.web.offer",
    owner=OWNER,
    sources=[VIEW, RequestSource("given", {"price": "f64"})],
    features=[Feature("total", "f64", derived("price * score"))],
)
PROFILE = shop_definitions().feature_views[0]
MADE = {
    "on-demand view": (
        DefinitionSet(on_demand_views=[OFFER]),
        DefinitionKind.ON_DEMAND_VIEW,
        "shop.web.offer@v1:total",
    ),
    "feature view": (DefinitionSet(feature_views=[PROFILE]), DefinitionKind.FEATURE_VIEW, f"{VIEW}:age"),
    "service alone": (
        DefinitionSet(feature_services=shop_definitions().feature_services),
        DefinitionKind.FEATURE_SERVICE,
        f"{SERVICE}@v1",
    ),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Parts, Client]]:
    parts = Parts(tmp_path / "store")
    with parts.serve(), Client(f"127.0.0.1:{parts.port}") as client:
        yield parts, client
    parts.close()


@pytest.mark.parametrize("case", MADE)
def test_apply_returns_when_the_feature_server_serves_its_revision(server: tuple[Parts, Client], case: str) -> None:
    parts, client = server
    definitions, kind, feature = MADE[case]
    applied = Plan((Change(kind, feature.partition("@")[0], 1, ChangeKind.CREATE, ()),), 2)
    with pytest.raises(Unavailable) as caught:
        await_served(client, definitions, applied, limit_s=0.0)
    asked = "service" if kind is DefinitionKind.FEATURE_SERVICE else "feature"
    assert (caught.value.reason, caught.value.metadata) == ("NOT_SERVED_YET", {asked: feature})
    parts.catalogue.publish(state_of(replace(shop_definitions(), on_demand_views=[OFFER]), revision=2))
    await_served(client, definitions, applied, limit_s=0.0)
