"""The commands against real servers: definitions and rows in, features out, and every refusal in one line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.platforms import Running, headrace, running

SERVICE = "shop.ranking.homepage"
VIEW = "shop.users.activity"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("starter") / "project"
    assert headrace("init", str(folder), cwd=folder.parent).returncode == 0
    with running(folder) as started:
        applied = started.headrace("apply", "definitions.py")
        assert applied.returncode == 0, applied.stderr
        materialized = started.headrace("materialize", VIEW)
        assert materialized.returncode == 0, materialized.stderr
        yield started


def rows(platform: Running, *arguments: str) -> list[dict[str, Any]]:
    done = platform.headrace("read", *arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return found


def test_materialized_rows_are_read_with_their_states(platform: Running) -> None:
    first, second, third, fifth = rows(platform, SERVICE, "--entity", "user_id=1,2,3,5")
    assert first["features"] == {"country": "DE", "basket_value": 42.5, "visits": 2}
    assert second["statuses"] == {"country": "PRESENT", "basket_value": "NULL", "visits": "PRESENT"}
    assert third["features"] == {"country": None, "basket_value": 7.25, "visits": 1}
    assert set(fifth["statuses"].values()) == {"MISSING"}


def test_features_may_be_named_one_by_one_and_keys_may_be_null(platform: Running) -> None:
    name = f"{VIEW}@v1:visits"
    found = rows(platform, "--feature", name, "--entity", "user_id=[1, null]")
    assert [row["features"] for row in found] == [{name: 2}, {name: None}]
    assert [row["statuses"] for row in found] == [{name: "PRESENT"}, {name: "MISSING"}]


def test_table_has_a_line_per_feature(platform: Running) -> None:
    done = platform.headrace("read", SERVICE, "--entity", "user_id=1,5")
    assert done.stdout.splitlines() == [
        "FEATURE       1     5",
        "country       DE    MISSING",
        "basket_value  42.5  MISSING",
        "visits        2     MISSING",
    ]


def test_written_rows_are_read_and_older_ones_change_nothing(platform: Running, tmp_path: Path) -> None:
    fields = {"user_id": 9, "country": "NO", "basket_value": 1.5, "visits": 3}
    newer, older = tmp_path / "newer.jsonl", tmp_path / "older.jsonl"
    newer.write_text(json.dumps({**fields, "event_time": "2026-03-01T00:00:00Z"}) + "\n")
    older.write_text(json.dumps({**fields, "country": "XX", "event_time": "2026-02-01T00:00:00Z"}) + "\n")
    for file in (newer, older):
        done = platform.headrace("write", VIEW, str(file), "--durability", "fsync", "-o", "json")
        assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["feature_view"], answer["row_count"], answer["stale_count"]) == (f"{VIEW}@v1", 1, 1)
    assert len(answer["tokens"]) == 1
    assert rows(platform, SERVICE, "--entity", "user_id=9")[0]["features"]["country"] == "NO"


def test_definitions_are_shown_in_every_form(platform: Running) -> None:
    assert platform.headrace("get", "view", VIEW).stdout.splitlines()[1].startswith(f"{VIEW}@v1  active  shop")
    document = yaml.safe_load(platform.headrace("get", "view", f"{VIEW}@v1", "-o", "yaml").stdout)
    assert [feature["name"] for feature in document["features"]] == ["country", "basket_value", "visits"]
    listed = json.loads(platform.headrace("list", "services", "-o", "json").stdout)
    assert [(service["name"], service["version"]) for service in listed] == [(SERVICE, 1)]
    described = platform.headrace("describe", "view", VIEW).stdout
    assert "\nfeatures\nNAME          TYPE    LATEST\n" in described


def test_plan_and_dry_run_change_nothing(platform: Running, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(
        "feature_services:\n- name: shop.ranking.basket\n  owner: shop\n  entries:\n"
        f"  - feature_view: {VIEW}@v1\n    features: [basket_value]\n"
    )
    for command in (["plan", str(more)], ["apply", str(more), "--dry-run"]):
        done = platform.headrace(*command)
        assert done.returncode == 0, done.stderr
        assert "create  feature service  shop.ranking.basket@v1" in done.stdout
        assert "1 changes to make" in done.stdout
    assert platform.headrace("get", "service", "shop.ranking.basket").returncode == 1


def test_retired_service_is_no_longer_read(platform: Running, tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text(
        f"feature_services:\n- name: shop.ranking.short\n  owner: shop\n  entries:\n  - feature_view: {VIEW}@v1\n"
    )
    assert platform.headrace("apply", str(file)).returncode == 0
    assert platform.headrace("retire", "service", "shop.ranking.short@v1").returncode == 0
    assert platform.headrace("read", "shop.ranking.short", "--entity", "user_id=1").returncode == 1


@pytest.mark.parametrize(
    ("command", "reason_or_text"),
    [
        ("get view shop.users.activty", "did you mean"),
        ("get colour shop.users.activity", "UNKNOWN_KIND"),
        ("retire view shop.users.activity@v1", "PINNED"),
        ("read shop.ranking.homepag --entity user_id=1", "shop.ranking.homepag"),
        ("read --feature shop.users.activity@v1:contry --entity user_id=1", "contry"),
        ("read shop.ranking.homepage", "--entity user_id=... is missing"),
        ("read shop.ranking.homepage --entity user=1", "ENTITY_KEY"),
        ("read shop.ranking.homepage --entity user_id=abc", "ENTITY_KEY_TYPE"),
        ("read", "SELECTION"),
        ("write shop.users.activity data/activity.csv", "COLUMN_MISSING"),
        ("write shop.users.activity none.csv", "FILE_NOT_READABLE"),
        ("write shop.users.activity data/more_activity.jsonl --durability never", "DURABILITY"),
        ("materialize shop.users.activity --from shop.users.nothing", "shop.users.nothing"),
        ("plan none.py", "none.py"),
        ("init .", "FOLDER_NOT_EMPTY"),
    ],
)
def test_mistakes_are_one_line_and_exit_1(platform: Running, command: str, reason_or_text: str) -> None:
    done = platform.headrace(*command.split(" "))
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert reason_or_text in done.stderr


def test_too_many_rows_are_refused_by_the_server(platform: Running) -> None:
    keys = ",".join(map(str, range(10_001)))
    done = platform.headrace("read", SERVICE, "--entity", f"user_id={keys}")
    assert done.returncode == 1
    assert "10000" in done.stderr.replace(",", "")
