"""Names and references."""

from collections.abc import Callable

import pytest

from headrace.errors import InvalidArgument
from headrace.names import (
    NAME_LENGTH_MAX,
    VERSION_MAX,
    FeatureRef,
    VersionRef,
    check_name,
    is_word,
    parse_feature_ref,
    parse_pinned_ref,
    parse_plain_name,
    parse_version_ref,
    team_of,
)

NAME = "flights.ops.departures"


@pytest.mark.parametrize("text", [NAME, f"{NAME}@v1", f"{NAME}@v{VERSION_MAX}"])
def test_version_reference_survives_a_round_trip(text: str) -> None:
    assert str(parse_version_ref(text)) == text


def test_parsed_reference_holds_name_and_version() -> None:
    assert parse_version_ref(f"{NAME}@v3") == VersionRef(NAME, 3)
    assert parse_version_ref(NAME) == VersionRef(NAME, 0)


@pytest.mark.parametrize("text", [f"{NAME}@v3:dep_delay", f"{NAME}:dep_delay"])
def test_feature_reference_survives_a_round_trip(text: str) -> None:
    assert str(parse_feature_ref(text)) == text


def test_feature_reference_holds_its_parts() -> None:
    assert parse_feature_ref(f"{NAME}@v3:dep_delay") == FeatureRef(NAME, 3, "dep_delay")


def test_name_of_the_longest_length_is_accepted() -> None:
    longest = "flights.ops." + "a" * (NAME_LENGTH_MAX - len("flights.ops."))
    assert check_name(longest) == longest
    with pytest.raises(InvalidArgument, match="129 characters"):
        check_name(longest + "a")


def test_references_sort_by_name_then_number() -> None:
    refs = [VersionRef(NAME, 10), VersionRef(NAME, 2), VersionRef("a.b.c", 11)]
    assert sorted(refs) == [VersionRef("a.b.c", 11), VersionRef(NAME, 2), VersionRef(NAME, 10)]


@pytest.mark.parametrize("text", ["dep_delay", "a", "a1_b2", "x9"])
def test_lower_snake_case_is_a_word(text: str) -> None:
    assert is_word(text)


@pytest.mark.parametrize("text", ["", "_a", "a_", "a__b", "1a", "A", "a-b", "a b", "a\n", "é", "a" * 129, "\uff41"])
def test_other_texts_are_no_words(text: str) -> None:
    assert not is_word(text)


def test_team_is_the_first_part() -> None:
    assert team_of(NAME) == team_of("flights.oncall") == team_of("flights") == "flights"


BAD_NAMES = ["", "a", "a.b", "a.b.c.d", "a..c", ".a.b", "A.b.c", "a.b.c ", "a.b.c\n", "a.b-c.d", "a.b.c@", "a.b.c@v0"]
BAD_VERSIONS = ["a.b.c@1", "a.b.c@v01", "a.b.c@v-1", "a.b.c@v2147483648", "a.b.c@v1@v2", "a.b.c@V1", "a.b.c@v1 "]


@pytest.mark.parametrize("text", [*BAD_NAMES, *BAD_VERSIONS, "x" * 10_000, "\udc80.b.c"])
def test_malformed_reference_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_version_ref(text, "service")
    assert caught.value.reason == "INVALID_NAME"
    assert caught.value.field == "service"
    assert len(caught.value.message) < 600
    caught.value.message.encode()


@pytest.mark.parametrize("text", [NAME, f"{NAME}@v1", f"{NAME}@v1:", f"{NAME}@v1:A", f":{NAME}", "a:b:c"])
def test_malformed_feature_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_feature_ref(text)
    assert (caught.value.reason, caught.value.field) == ("INVALID_NAME", "features")


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [(parse_pinned_ref, NAME, "VERSION_REQUIRED"), (parse_plain_name, f"{NAME}@v1", "VERSION_REFUSED")],
)
def test_version_is_required_or_refused_where_the_kind_says_so(
    parse: Callable[[str], object], text: str, reason: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(text)
    assert caught.value.reason == reason
