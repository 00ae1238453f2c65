"""What `headrace capacity plan` prints."""

import io
import json
from pathlib import Path

import pytest

from control_plane.cli.capacity_commands import Asked, plan, size_of
from control_plane.cli.output import Format
from control_plane.cli.session import Session
from headrace.errors import InvalidArgument

SMALL = Asked(1e5, 1e6, 1e4, 200, 20, "1PB", "1TB", 2, 16, "64GiB", "4TB", 10.0)


def printed(form: Format) -> str:
    out = io.StringIO()
    plan(Session({}, form=form, out=out), SMALL, None)
    return out.getvalue()


def test_table_names_figure_resource_and_ring(repository: Path) -> None:
    text = printed(Format.TABLE)
    assert "online.json headrace_cpu_us_1x200@" in text
    assert "asks for" in text and "A simulated ring of" in text
    assert {"cores", "memory", "disk", "network"} <= {line.split()[0] for line in text.splitlines() if line}


def test_json_holds_the_sums_that_the_table_shows() -> None:
    told = json.loads(printed(Format.JSON))
    assert told["nodes"] >= told["nodes_by_resource"][told["binding"]] == max(told["nodes_by_resource"].values())
    assert sum(need["amount"] for need in told["needs"] if need["resource"] == "object storage") == 1e15
    assert told["ring"]["simulated_servers"] >= 3
    assert told["largest_ring"]["simulated_servers"] == 1_000


@pytest.mark.parametrize(("text", "size"), [("100PB", 1e17), ("512GiB", 512 * 2**30), ("1.5 TB", 1.5e12), ("7", 7.0)])
def test_sizes_are_read_as_people_type_them(text: str, size: float) -> None:
    assert size_of(text, "--disk") == size


@pytest.mark.parametrize("text", ["", "PB", "1XB", "-1GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        size_of(text, "--disk")
    assert (caught.value.reason, caught.value.field) == ("SIZE", "--disk")
