"""Explanations over both transports, as the client has them."""

import pytest

from headrace.client import InspectionClient
from headrace.errors import NotFound
from headrace.types import Scalar
from tests.unit.feature_server.domain.test_reads import write
from tests.unit.feature_server.parts import NOW_US, VIEW, Parts
from tests.unit.feature_server.served import Served, request


def test_a_value_is_explained_on_the_port_of_the_reads(served: Served, parts: Parts) -> None:
    write(parts, [1, 2], 40)
    with InspectionClient(f"127.0.0.1:{served.port}") as client:
        found = client.explain(f"{VIEW}:codes", {"user_id": [2]}, key_types={"user_id": Scalar.I64})
        missing = client.explain("shop.web.profile:codes", {"user_id": [9]})
    answer = served.get(request([2]))
    assert (found.feature.value, found.feature.state) == ([2, 3], "PRESENT")
    assert found.read_time_us == answer.read_time_us == NOW_US
    assert found.registry_revision == answer.registry_revision
    assert found.feature.row is not None
    assert (found.feature.row.is_stored, found.feature.row.event_time_us) == (True, NOW_US)
    assert [reason.code for reason in missing.feature.reasons] == ["NO_ROW", "UNKNOWN_ENTITY"]
    assert (missing.feature.value, missing.feature.has_value) == (None, False)


def test_what_is_unknown_is_refused_with_its_reason(served: Served) -> None:
    with InspectionClient(f"127.0.0.1:{served.port}") as client, pytest.raises(NotFound) as caught:
        client.explain("shop.web.profile:cods", {"user_id": [1]})
    assert caught.value.reason == "UNKNOWN_FEATURE"
    assert "'codes'" in caught.value.message
