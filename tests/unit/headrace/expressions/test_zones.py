"""Zone tables against the zone rules of Python."""

import importlib.resources
import struct
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from io import BytesIO
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.expressions.zones import ZONE_END, UnknownZoneError, zone_names, zone_table

OF_PACKAGE = importlib.resources.files("tzdata").joinpath("zoneinfo")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(
    st.sampled_from(zone_names()),
    st.datetimes(datetime(1850, 1, 1), datetime(2199, 12, 30), timezones=st.just(UTC)),
)
def test_offsets_are_those_of_zoneinfo(name: str, at: datetime) -> None:
    table = zone_table(name)
    (count,) = struct.unpack_from("<I", table)
    starts = struct.unpack_from(f"<{count}q", table, 16)
    offsets = struct.unpack_from(f"<{count}q", table, 16 + 8 * count)
    found = offsets[bisect_right(starts, (at - EPOCH) // timedelta(microseconds=1)) - 1]
    zone = ZoneInfo.from_file(BytesIO(OF_PACKAGE.joinpath(*name.split("/")).read_bytes()))
    assert timedelta(microseconds=found) == at.astimezone(zone).utcoffset()


def test_zones_that_change_clocks_end_and_others_do_not() -> None:
    assert struct.unpack_from("<q", zone_table("Europe/Berlin"), 8)[0] == (ZONE_END - EPOCH) // timedelta(
        microseconds=1
    )
    assert struct.unpack_from("<q", zone_table("UTC"), 8)[0] == 2**63 - 1


def test_an_unknown_zone_names_a_near_one() -> None:
    with pytest.raises(UnknownZoneError, match="did you mean 'Europe/Berlin'"):
        zone_table("Europe/Berlim")
