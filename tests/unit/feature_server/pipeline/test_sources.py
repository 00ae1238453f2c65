"""URIs of streams, and what of a registry the pipeline reads."""

import pytest

from feature_server.domain.layouts import view_layouts
from feature_server.pipeline.sources import Format, feeds_of, stream_of
from headrace.errors import InvalidArgument
from tests.unit.feature_server.parts import shop_state, state_of
from tests.unit.feature_server.pipeline.streams import SOURCE, USER, definitions


@pytest.mark.parametrize(
    ("uri", "topic", "form", "schema", "message"),
    [
        ("orders", "orders", Format.JSON, "", ""),
        ("kafka:orders", "orders", Format.JSON, "", ""),
        ("kafka:shop.orders-1?format=arrow", "shop.orders-1", Format.ARROW, "", ""),
        ("kafka:orders?format=avro&schema=orders.avsc", "orders", Format.AVRO, "orders.avsc", ""),
        ("kafka:o?format=protobuf&schema=o.desc&message=shop.Order", "o", Format.PROTOBUF, "o.desc", "shop.Order"),
    ],
)
def test_a_uri_names_topic_and_format(uri: str, topic: str, form: Format, schema: str, message: str) -> None:
    stream = stream_of(state_of(definitions(uri)).sources[SOURCE])
    assert (stream.topic, stream.format, stream.schema, stream.message) == (topic, form, schema, message)


@pytest.mark.parametrize(
    "uri",
    [
        "kafka:",
        "kafka:two topics",
        "kafka:" + "o" * 250,
        "kafka:orders?format=xml",
        "kafka:orders?format",
        "kafka:orders?format=json&compression=lz4",
        "kafka:orders?format=avro",
        "kafka:orders?format=avro&schema=../secret",
        "kafka:orders?format=avro&schema=.hidden",
        "kafka:orders?format=json&schema=orders.avsc",
        "kafka:orders?format=protobuf&schema=orders.desc",
        "kafka:orders?format=avro&schema=orders.avsc&message=Order",
    ],
)
def test_a_uri_that_names_no_stream_is_refused_with_its_source(uri: str) -> None:
    with pytest.raises(InvalidArgument, match=SOURCE) as refused:
        stream_of(state_of(definitions(uri)).sources[SOURCE])
    assert refused.value.reason == "BAD_STREAM_URI"


def test_a_feed_has_the_columns_that_its_views_read() -> None:
    state = state_of(definitions())
    feeds, refused = feeds_of(state, view_layouts(state))
    assert refused == {}
    feed = feeds[SOURCE]
    assert list(feed.columns) == ["at", "cents", "shop", "user_id"]
    assert [entity.name for entity in feed.entities] == [USER]


def test_retired_views_and_pushed_sources_feed_nothing() -> None:
    retired = state_of(definitions(), retired=["shop.web.spent", "shop.web.last"])
    assert feeds_of(retired, view_layouts(retired)) == ({}, {})
    pushed = shop_state()
    assert feeds_of(pushed, view_layouts(pushed)) == ({}, {})


def test_a_source_that_cannot_be_read_is_told_and_leaves_the_others() -> None:
    state = state_of(definitions("kafka:orders?format=xml"))
    feeds, refused = feeds_of(state, view_layouts(state))
    assert feeds == {}
    assert refused[SOURCE].reason == "BAD_STREAM_URI"
