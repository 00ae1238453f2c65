"""`headrace service layout` measures rows of a store that a server has open; --apply moves rows once it has stopped."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from feature_server.domain.read_counts import COUNTS_NAME
from feature_server.layout_report import fetches_that_pay, pays
from feature_server.storage.layout_trial import Figures
from headrace.convert.definitions import set_to_pb
from headrace.definitions import DefinitionSet, Feature, FeatureService, ServiceEntry, latest
from protos.control.v1 import registry_service_pb2 as registry_pb
from protos.control.v1 import registry_service_pb2_grpc as registry_grpc
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.integration.platforms import headrace
from tests.integration.test_server_life import TIMEOUT_S, Server, registry, server, wait_until
from tests.unit.feature_server.parts import FEATURES, OWNER, SERVICE, VIEW, ipc, shop_batch, shop_definitions

SECOND, PAIR = "shop.web.second", "shop.web.pair"
THIRD, FOURTH, UNWRITTEN = "shop.web.third", "shop.web.fourth", "shop.web.unwritten"
KEYS = range(300)
FOLDER = "feature_server"  # of a platform's data folder


def definitions() -> DefinitionSet:
    """Two views of one user that one service reads, and two that nobody writes for another."""
    shop = shop_definitions()
    profile = shop.feature_views[0]
    ages = [
        replace(profile, name=name, features=[Feature("age", "i32", latest("age"))]) for name in (SECOND, THIRD, FOURTH)
    ]
    pair = [ServiceEntry(VIEW, list(FEATURES)), ServiceEntry(f"{SECOND}@v1", ["age"], output_prefix="second_")]
    unwritten = [ServiceEntry(f"{name}@v1", ["age"], output_prefix=name[-5:]) for name in (THIRD, FOURTH)]
    services = [
        FeatureService(name=name, owner=OWNER, entries=entries)
        for name, entries in ((PAIR, pair), (UNWRITTEN, unwritten))
    ]
    return replace(shop, feature_views=[profile, *ages], feature_services=services)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """A data folder whose server runs, with rows that only its write-ahead logs hold."""
    folder = tmp_path_factory.mktemp("platform")
    with registry(folder / "control_plane") as address:
        with grpc.insecure_channel(address) as channel:
            request = registry_pb.ApplyDefinitionsRequest(definitions=set_to_pb(definitions()))
            registry_grpc.RegistryServiceStub(channel).ApplyDefinitions(request, timeout=TIMEOUT_S)
        with server(folder / FOLDER, address) as running:
            wait_until(running.is_serving)
            wait_until((folder / FOLDER / "registry").exists)
            for view in (VIEW, f"{SECOND}@v1"):
                write(running, view)
            yield folder, running


def write(running: Server, view: str) -> None:
    batch = shop_batch(KEYS, time.time_ns() // 1_000)
    if view.startswith(SECOND):
        batch = batch.select(["user_id", "event_time", "age"])
    request = pb.WriteFeaturesRequest(feature_view=view, arrow_ipc=ipc(batch))
    assert running.stub.WriteFeatures(request, timeout=TIMEOUT_S).row_count == len(KEYS)


def layout(folder: Path, service: str, *options: str) -> tuple[int, str, str]:
    done = headrace("service", "layout", service, "--data", str(folder), *options, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def test_too_few_rows_are_refused_with_what_to_do(platform: tuple[Path, Server]) -> None:
    folder, _ = platform
    code, _, said = layout(folder, UNWRITTEN)
    assert (code, "[TOO_FEW_ROWS]" in said, said.count("\n")) == (1, True, 1)
    assert "only 0 of 0 sampled entities" in said


def test_both_layouts_are_measured_beside_the_running_server(platform: tuple[Path, Server]) -> None:
    folder, running = platform
    before = sorted(path.name for path in (folder / FOLDER).rglob("*"))
    code, out, said = layout(folder, PAIR, "-o", "json")
    assert code == 0, said
    report: dict[str, Any] = json.loads(out)
    assert report["service"] == f"{PAIR}@v1"
    (candidate,) = report["candidates"]
    assert candidate["views"] == [VIEW, f"{SECOND}@v1"]
    assert candidate["entities_with_every_view"] == candidate["entities_sampled"] == len(KEYS)
    apart, packed = candidate["apart"], candidate["packed"]
    assert (apart["row_count"], packed["row_count"]) == (2, 1)
    assert packed["write_bytes"] == packed["row_bytes"] > apart["write_bytes"]
    assert all(value > 0 for one in (apart, packed) for value in one.values())
    after = sorted(path.name for path in (folder / FOLDER).rglob("*") if path.name != COUNTS_NAME)
    assert after == [name for name in before if name != COUNTS_NAME], "nothing is left behind"
    write(running, VIEW)


def test_table_names_the_views_and_the_change(platform: tuple[Path, Server]) -> None:
    folder, _ = platform
    code, out, said = layout(folder, f"{PAIR}@v1", "--entities", "100")
    assert code == 0, said
    assert "2 views always read together" in out
    assert "CHANGE" in out and "fetch from disk blocks" in out
    assert re.search(r"^proposal: (pack them where more than [\d.]+ fetches|keep them apart)", out, re.M)


def test_packing_pays_by_what_a_fetch_saves_and_a_write_costs() -> None:
    def figures(miss_us: float, write_us: float) -> Figures:
        return Figures(1, 1.0, 1.0, 1.0, 1.0, miss_us, write_us, 1.0)

    assert fetches_that_pay(figures(6.0, 10.0), figures(3.0, 16.0)) == 2.0
    assert fetches_that_pay(figures(6.0, 10.0), figures(3.0, 9.0)) == 0.0
    assert fetches_that_pay(figures(3.0, 10.0), figures(3.0, 9.0)) is None


def test_unknown_service_and_folder_are_one_line(platform: tuple[Path, Server], tmp_path: Path) -> None:
    folder, _ = platform
    code, _, said = layout(folder, SERVICE)
    assert (code, "[UNKNOWN_FEATURE_SERVICE]" in said, said.count("\n")) == (1, True, 1)
    code, _, said = layout(tmp_path, SERVICE)
    assert (code, "[NO_REGISTRY]" in said, said.count("\n")) == (1, True, 1)


def test_packing_pays_by_the_counts_of_the_server() -> None:
    def candidate(least: float | None, per_write: float | None, fetched: int = 10) -> dict[str, Any]:
        return {"fetches_per_write_to_pay": least, "fetches_per_write": per_write, "rows_fetched": fetched}

    assert all(map(pays, [candidate(2.0, 2.1), candidate(0.0, None)]))
    assert not any(map(pays, [candidate(2.0, 2.0), candidate(None, 9.0), candidate(0.0, None, fetched=0)]))


def test_apply_moves_rows_of_a_stopped_server_which_then_answers_the_same(tmp_path: Path) -> None:
    with registry(tmp_path / "control_plane") as address:
        with grpc.insecure_channel(address) as channel:
            request = registry_pb.ApplyDefinitionsRequest(definitions=set_to_pb(definitions()))
            registry_grpc.RegistryServiceStub(channel).ApplyDefinitions(request, timeout=TIMEOUT_S)
        with server(tmp_path / FOLDER, address) as running:
            wait_until(running.is_serving)
            wait_until((tmp_path / FOLDER / "registry").exists)
            for view in (VIEW, f"{SECOND}@v1"):
                write(running, view)
            before = read(running)
            code, _, said = layout(tmp_path, PAIR, "--apply", "--all")
            assert (code, "[DATA_FOLDER_IN_USE]" in said) == (1, True)
        applied = json_of(tmp_path, "--apply", "--all")["applied"]
        assert applied["rows_moved"] == 2 * len(KEYS)
        assert all(figures["disk_bytes"] > 0 for figures in (applied["before"], applied["after"]))
        with server(tmp_path / FOLDER, address) as running:
            wait_until(running.is_serving)
            assert read(running) == before
            write(running, VIEW)
            assert read(running) != before, "the event times are newer"
    report = json_of(tmp_path, "--apply", "--all")
    assert report["applied"]["rows_moved"] == 0
    (candidate,) = report["candidates"]
    assert candidate["rows_read"] == {f"{PAIR}@v1": 3 * len(KEYS)}
    assert candidate["rows_written"] == 3 * len(KEYS)
    code, out, said = layout(tmp_path, PAIR, "--apply")
    assert code == 0, said
    assert "counted by the server: " in out


def json_of(folder: Path, *options: str) -> dict[str, Any]:
    code, out, said = layout(folder, PAIR, *options, "-o", "json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(out)
    return found


def read(running: Server) -> list[bytes]:
    """Columns of every key, without the time of the read."""
    columns = [pb.EntityColumn(join_key="user_id", int64_values=KEYS)]
    request = pb.GetOnlineFeaturesRequest(
        feature_service=PAIR, entity_columns=columns, options=pb.ReadOptions(include_event_times=True)
    )
    return [column.SerializeToString() for column in running.stub.GetOnlineFeatures(request, timeout=TIMEOUT_S).columns]
