"""Pages of a listing."""

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.pages import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageRequest, page_of
from headrace.definitions import RegisteredEntity, Stamp
from headrace.errors import InvalidArgument
from tests.unit.headrace.definitions.samples import entity

STAMP = Stamp(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), "e")
ITEMS = [RegisteredEntity(entity(f"flights.ops.e{number:04}"), STAMP, number) for number in range(1, 1_205)]


def ids(items: tuple[RegisteredEntity, ...]) -> list[int]:
    return [item.entity_id for item in items]


@pytest.mark.parametrize(
    ("page_size", "count"),
    [(0, PAGE_SIZE_DEFAULT), (1, 1), (7, 7), (PAGE_SIZE_MAX, PAGE_SIZE_MAX), (10**6, PAGE_SIZE_MAX)],
)
def test_size_is_default_or_cut(page_size: int, count: int) -> None:
    assert len(page_of(ITEMS, "entities", PageRequest(page_size)).items) == count


@given(st.integers(1, 700))
def test_pages_give_every_item_once(page_size: int) -> None:
    found: list[int] = []
    token = ""
    while True:
        page = page_of(ITEMS, "entities", PageRequest(page_size, token))
        found += ids(page.items)
        token = page.next_page_token
        if not token:
            break
    assert found == [item.entity_id for item in ITEMS]


def test_exact_last_page_has_no_token() -> None:
    assert page_of(ITEMS[:5], "entities", PageRequest(5)).next_page_token == ""
    assert page_of([], "entities", PageRequest()).next_page_token == ""


def test_prefix_filters() -> None:
    page = page_of(ITEMS, "entities", PageRequest(name_prefix="flights.ops.e12"))
    assert ids(page.items) == [1200, 1201, 1202, 1203, 1204]


def test_item_that_left_or_came_between_pages_moves_no_other() -> None:
    first = page_of(ITEMS[:4], "entities", PageRequest(2))
    second = page_of([ITEMS[0], ITEMS[2], ITEMS[3]], "entities", PageRequest(2, first.next_page_token))
    assert ids(first.items + second.items) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (PageRequest(-1), "page_size"),
        (PageRequest(page_token="x"), "page_token"),
        (PageRequest(page_token="é"), "page_token"),
        (PageRequest(page_token="a" * 100_000), "page_token"),
        (PageRequest(page_token=base64.urlsafe_b64encode(b"[1,2]").decode()), "page_token"),
        (PageRequest(page_token=base64.urlsafe_b64encode(b'["a","b",true]').decode()), "page_token"),
        (PageRequest(page_token=base64.urlsafe_b64encode(b"[" * 700).decode()), "page_token"),
        (PageRequest(page_token=base64.urlsafe_b64encode(b"\xff").decode()), "page_token"),
        (PageRequest(name_prefix="x" * 129), "name_prefix"),
    ],
)
def test_wrong_request_is_refused(request_: PageRequest, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        page_of(ITEMS, "entities", request_)
    assert caught.value.field == field


@pytest.mark.parametrize(("listing", "prefix"), [("sources", ""), ("entities", "flights.")])
def test_token_of_another_listing_is_refused(listing: str, prefix: str) -> None:
    token = page_of(ITEMS, "entities", PageRequest(1)).next_page_token
    assert json.loads(base64.urlsafe_b64decode(token))[1] == "flights.ops.e0001"
    with pytest.raises(InvalidArgument) as caught:
        page_of(ITEMS, listing, PageRequest(1, token, prefix))
    assert caught.value.reason == "INVALID_PAGE_TOKEN"
