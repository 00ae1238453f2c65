"""Plans from recorded figures: the sums by hand, what stands in for what, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain.capacity import plan as plans
from control_plane.domain.capacity.figures import Measured, Results
from control_plane.domain.capacity.plan import KEY_BYTES, Load, Node, row_bytes
from control_plane.domain.capacity.ring_check import check_ring
from core_ext.row_codec import Schema
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.types import Scalar, Shape

ONLINE = {
    "commit": "abc",
    "machine": "AMD, 2 cores, 24 GiB",
    "scale": {},
    "figures": [
        {"id": "headrace_cpu_us_1x200", "value": 20.0},
        {"id": "headrace_write_existing_rows", "value": 100_000.0},
        {"id": "memory_per_row_vs_packed", "value": 1.5},
    ],
}
SHAPES = {"commit": "abc", "scale": {"cache_share": 0.25}, "figures": []}
WINDOWS = {"commit": "abd", "scale": {}, "figures": [{"id": "window_events_per_s", "value": 5e6}]}
STREAM = {"commit": "abe", "scale": {}, "figures": [{"id": "stream_events_per_s_per_core_arrow", "value": 2e5}]}
LOAD = Load(1e6, 2e8, 1e5, 400, 20, 1e17, 1e14)
NODE = Node(10, 1e12, 1e13, 1e11, 2, busy_share=0.5, full_share=0.5)


def results(folder: Path, **files: Any) -> Results:
    for name, told in files.items():
        (folder / f"{name}.json").write_text(told if isinstance(told, str) else json.dumps(told))
    return Results(folder)


def measured(folder: Path) -> Measured:
    return results(folder, online=ONLINE, shapes=SHAPES, windows=WINDOWS, stream=STREAM).measured()


def test_figures_are_those_of_the_files_with_their_commits(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert (found.requests.rate, found.requests.features) == (50_000.0, 200)
    assert (found.rows.rate, found.events.rate) == (50_000.0, 2e5)
    assert (found.memory_factor, found.cached_share) == (1.5, 0.25)
    assert found.events.origin == "stream.json stream_events_per_s_per_core_arrow@abe"


def test_plan_is_the_sum_by_hand(tmp_path: Path) -> None:
    made = plans.plan(LOAD, NODE, measured(tmp_path))
    reads, writes, events = (need.amount for need in made.needs if need.resource == "cores")
    assert reads == pytest.approx(1e5 * 2 / 50_000), "400 features are two reads of 200"
    assert writes == pytest.approx(1e7 * 2 / 50_000), "ten million rows, each to two copies"
    assert events == pytest.approx(1e6 / 2e5)
    assert made.total("memory") == pytest.approx(1e14 * 2 * 0.25 * 1.5)
    assert made.total("disk") == pytest.approx(2e14)
    size = row_bytes(20)
    assert made.total("network") == pytest.approx(8 * (2 * 1e5 * 400 * 9 + 1e7 * size * 2 + 3 * 1.1e7 * size))
    assert made.nodes_by_resource == {
        "cores": 82,  # 409 cores, five in use of each node
        "memory": 150,
        "disk": 40,
        "network": -(-made.total("network") // 5e10),
    }
    assert (made.binding, made.node_count) == ("memory", 150)


def test_row_is_as_large_as_the_codec_makes_it() -> None:
    columns = [(int(Scalar.F64), int(Shape.SINGLE), 0)] * 20
    assert row_bytes(20) == Schema(1, columns).fixed_bytes + KEY_BYTES
    assert row_bytes(40) - row_bytes(20) == pytest.approx(20 * 8, abs=8), "values, and bits of null"


def test_kernel_stands_in_for_a_pipeline_that_was_not_recorded_and_says_so(tmp_path: Path) -> None:
    found = results(tmp_path, online=ONLINE, shapes=SHAPES, windows=WINDOWS).measured()
    assert found.events.rate == 5e6
    assert "lower bound" in found.events.note and "loadtest.peers.stream" in found.events.note


@pytest.mark.parametrize("name", ["online", "shapes"])
def test_figure_that_was_never_recorded_is_named_with_its_command(tmp_path: Path, name: str) -> None:
    files = {"online": ONLINE, "shapes": SHAPES, "windows": WINDOWS}
    del files[name]
    with pytest.raises(FailedPrecondition, match=r"run python -m loadtest\.peers") as caught:
        results(tmp_path, **files).measured()
    assert caught.value.reason == "FIGURE_MISSING"


@pytest.mark.parametrize("text", ["{", "[]", '{"figures": 3}'])
def test_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        results(tmp_path, online=text, shapes=SHAPES).measured()
    assert caught.value.reason == "BAD_RESULTS"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Load(-1.0, 0, 0, 1, 1, 0, 0),
        lambda: Load(0, float("nan"), 0, 1, 1, 0, 0),
        lambda: Load(0, 0, 0, 0, 1, 0, 0),
        lambda: Node(0, 1, 1, 1, 2),
        lambda: Node(1, 1, 1, 1, 2, busy_share=1.5),
    ],
)
def test_load_or_node_that_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.reason == "CAPACITY_INPUT"


def test_nodes_are_added_for_the_fullest_server_and_rings_for_more_than_one_holds() -> None:
    small = check_ring(30, 2)
    assert (small.simulated_servers, small.ring_count) == (30, 1)
    assert small.node_count >= 30 * small.balance.load_factor_max > 30
    many = check_ring(70, 2, servers_max=40)
    assert many.simulated_servers == 40
    assert many.ring_count == -(-many.node_count // 40) >= 2


def test_plan_at_a_thousand_servers_rests_on_the_recorded_figures(repository: Path) -> None:
    """The load that the design asks for, from the figures in the repository."""
    found = Results(repository / "loadtest" / "results").measured()
    load = Load(10e6, 1e9, 1e6, 200, 20, 100e15, 100e12)
    made = plans.plan(load, Node(64, 512 * plans.GIB, 16e12, 50e9, 2), found)
    ring = check_ring(1_000, 2)
    assert ring.simulated_servers == 1_000
    assert 1.0 <= ring.balance.load_factor_max <= 1.5
    assert ring.balance.moved_to_fair_mean <= 1.2
    assert made.node_count >= 1
    reads = next(need for need in made.needs if need.what.startswith("reads"))
    assert reads.amount == pytest.approx(1e6 / found.requests.rate)
