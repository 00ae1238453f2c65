"""`headrace service layout` measures rows of a store that a server has open, and changes nothing."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from feature_server.layout_report import fetches_that_pay
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
    assert sorted(path.name for path in (folder / FOLDER).rglob("*")) == before, "nothing is left behind"
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
