"""The commands over history against a real registry and a real lake, with every bad input a person can give."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.lake import lake_config
from batch.offline.positions import LogRange
from batch.skew.served import Answer, Served
from batch.skew.served_log import ServedLog
from batch.skew.served_log import rows_of as served_rows
from core_ext import rules
from core_ext.keys import encode_key
from headrace.client import RegistryClient
from headrace.definitions import DefinitionKind, RegisteredView
from headrace.names import FeatureRef, VersionRef
from headrace.types import Scalar, parse_type
from tests.integration.platforms import Running, environment, headrace, running, until

SERVICE = "shop.ranking.homepage"
NOON_US = 1_767_614_400_000_000  # 2026-01-05T12:00Z
DAY_US = 86_400_000_000
TABLE = ViewColumns(
    VersionRef("shop.users.activity", 1),
    [("user_id", Scalar.I64)],
    [("country", parse_type("string")), ("basket_value", parse_type("f64")), ("visits", parse_type("i32"))],
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("history") / "project"
    assert headrace("init", str(folder), cwd=folder.parent).returncode == 0
    files = folder / "files"
    files.mkdir()
    with running(folder, "--history", "--import-root", str(files)) as started:
        applied = started.headrace("apply", "definitions.py")
        assert applied.returncode == 0, applied.stderr
        yield started


@pytest.fixture(scope="module")
def lake(platform: Running) -> Path:
    folder = platform.folder / "lake"
    folder.mkdir()
    catalogue = Catalogue(lake_config(folder))
    append(catalogue, [(1, 0, "DE", 19.9, 1), (2, 0, "FR", None, 1), (1, 1, "DE", 42.5, 2)], 0)
    catalogue.close()
    return folder


def append(catalogue: Catalogue, rows: list[tuple[int, int, str, float | None, int]], first: int) -> None:
    times = [NOON_US + row[1] * DAY_US for row in rows]
    columns = {
        "user_id": [row[0] for row in rows],
        "country": [row[2] for row in rows],
        "basket_value": [row[3] for row in rows],
        "visits": [row[4] for row in rows],
        **dict.fromkeys(("_event_time", "_write_time", "_available_time"), times),
        "_source_id": [1] * len(rows),
        "_log_partition": [0] * len(rows),
        "_offset": list(range(first, first + len(rows))),
        "_tombstone": [False] * len(rows),
    }
    table = pa.table(columns, TABLE.arrow)
    catalogue.view_table(TABLE).append(table, [LogRange("log", 0, 1, first, first + len(rows))])


@pytest.fixture
def entities(tmp_path: Path) -> Path:
    times = pa.array([NOON_US + DAY_US // 2, NOON_US + 2 * DAY_US, NOON_US], pa.timestamp("us", "UTC"))
    rows = pa.table({"user_id": pa.array([1, 1, 7], pa.int64()), "event_time": times, "label": [0, 1, 0]})
    pq.write_table(rows, tmp_path / "entities.parquet")
    return tmp_path / "entities.parquet"


def ask(platform: Running, lake: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return platform.headrace(*words, "--lake", str(lake))


def join(platform: Running, lake: Path, entities: Path, out: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    words = ("offline", "get-historical", "--entities", str(entities), "--service", SERVICE, "--out", str(out))
    return ask(platform, lake, *words, *more)


def document(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_historical_features_are_written(platform: Running, lake: Path, entities: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    done = join(platform, lake, entities, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote 3 rows to {out} with the features of {SERVICE}@v1, as known at 20")
    assert done.stderr == ""
    rows = pq.read_table(out).to_pylist()
    assert [row["basket_value"] for row in rows] == [19.9, 42.5, None]
    assert [row["visits__status"] for row in rows] == [rules.PRESENT, rules.PRESENT, rules.MISSING]
    assert [row["label"] for row in rows] == [0, 1, 0]


def test_knowledge_cut_off_is_taken_and_told(platform: Running, lake: Path, entities: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    words = ("--as-of", "2026-01-06T00:00Z", "-o", "json")
    told = document(join(platform, lake, entities, out, *words))
    assert told["cutoff_us"] == NOON_US + DAY_US // 2
    assert pq.read_table(out)["basket_value"].to_pylist() == [19.9, 19.9, None]


@pytest.mark.timeout(300)
def test_spark_gives_the_same_digest_once_per_run(
    platform: Running, lake: Path, entities: Path, tmp_path: Path
) -> None:
    words = ("--as-of", "2027-01-01T00:00Z", "-o", "json")
    local = document(join(platform, lake, entities, tmp_path / "out.parquet", *words))
    told = document(join(platform, lake, entities, tmp_path / "spark", "--engine", "spark", *words))
    assert told["digest"] == local["digest"]
    assert told["snapshots"] == local["snapshots"]
    files = sorted(Path(told["output"]).glob("*.parquet"))
    assert pq.read_table(files).equals(pq.read_table(tmp_path / "out.parquet"))
    assert Path(told["output"]) == tmp_path / "spark" / told["run_id"]


@pytest.mark.timeout(300)
def test_history_of_a_view_at_many_times_is_written(platform: Running, lake: Path, tmp_path: Path) -> None:
    view = ("offline", "window-history", "shop.users.activity", "--out", str(tmp_path / "times"))
    times = ("--from", "2026-01-05T00:00Z", "--to", "2026-01-07T00:00Z", "--every", "1d")
    told = document(ask(platform, lake, *view, *times, "-o", "json"))
    found = pq.read_table(sorted(Path(told["output"]).glob("*.parquet"))).sort_by(
        [("user_id", "ascending"), ("event_time", "ascending")]
    )
    assert told["row_count"] == 4
    assert found["user_id"].to_pylist() == [1, 1, 2, 2]
    assert found["visits"].to_pylist() == [1, 2, 1, 1]
    refused = ask(platform, lake, *view, *times[:-1], "0m")
    assert refused.returncode == 1
    assert "names no time" in refused.stderr


def test_training_set_from_its_making_to_its_repair(
    platform: Running, lake: Path, entities: Path, tmp_path: Path
) -> None:
    words = ("training-set", "create", "january", "--entities", str(entities), "--service", SERVICE)
    made = document(ask(platform, lake, *words, "-o", "json"))
    entities.unlink()
    assert ask(platform, lake, "training-set", "verify", "january").returncode == 0
    catalogue = Catalogue(lake_config(lake))
    append(catalogue, [(1, 0, "AT", 5.0, 9)], 3)
    catalogue.close()
    Path(made["result"]).write_bytes(Path(made["result"]).read_bytes()[:-20])
    broken = ask(platform, lake, "training-set", "verify", "january")
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 1)
    assert "RESULT_CORRUPT" in broken.stderr
    rebuilt = ask(platform, lake, "training-set", "rebuild", "january")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert made["digest"] in rebuilt.stdout
    same = ask(platform, lake, "training-set", "verify", "january", "-o", "json")
    assert document(same)["same"]
    listed = ask(platform, lake, "training-set", "list")
    assert listed.stdout.splitlines()[1].split()[:4] == ["january", f"{SERVICE}@v1", "3", "3"]
    shown = ask(platform, lake, "training-set", "show", "january")
    assert "shop.users.activity@v1" in shown.stdout
    rows = pq.read_table(made["result"])
    place = rows.schema.get_field_index("visits")
    pq.write_table(rows.set_column(place, "visits", pa.array([8, 2, None], pa.int32())), made["result"])
    differs = ask(platform, lake, "training-set", "verify", "january")
    assert differs.returncode == 1
    assert "changed: visits" in differs.stdout
    alike = ask(platform, lake, "training-set", "diff", "january", "january")
    assert "same values" in alike.stdout


def drop_key(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["user_id"]), path)


def take_zone(path: Path) -> None:
    rows = pq.read_table(path)
    pq.write_table(rows.set_column(1, "event_time", rows["event_time"].cast(pa.timestamp("us"))), path)


def null_key(path: Path) -> None:
    rows = pq.read_table(path)
    pq.write_table(rows.set_column(0, "user_id", pa.array([1, None, 7], pa.int64())), path)


def corrupt(path: Path) -> None:
    path.write_bytes(b"PAR1, and nothing more PAR1")


@pytest.mark.parametrize(
    ("damage", "words", "reason"),
    [
        (drop_key, (), "MISSING_COLUMN"),
        (take_zone, (), "NAIVE_TIME"),
        (null_key, (), "NULL_KEY"),
        (corrupt, (), "CORRUPT_FILE"),
        (Path.unlink, (), "FILE_NOT_FOUND"),
        (None, ("--memory-limit", "1MiB"), "MEMORY_LIMIT_TOO_SMALL"),
        (None, ("--memory-limit", "lots"), "SIZE"),
        (None, ("--as-of", "2026-01-06T00:00"), "NAIVE_TIME"),
        (None, ("--as-of", "yesterday"), "TIME"),
        (None, ("--time-column", "when"), "MISSING_COLUMN"),
        (None, ("--service", "shop.ranking.nothing"), "UNKNOWN_NAME"),
        (None, ("--engine", "abacus"), "ENGINE"),
    ],
)
def test_bad_input_is_one_line_leaves_nothing_and_a_retry_works(
    platform: Running, lake: Path, entities: Path, tmp_path: Path, damage: Any, words: tuple[str, ...], reason: str
) -> None:
    good = entities.read_bytes()
    if damage is not None:
        damage(entities)
    out = tmp_path / "out.parquet"
    done = join(platform, lake, entities, out, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"[{reason}]" in done.stderr or reason == "UNKNOWN_NAME"
    assert [path.name for path in tmp_path.iterdir() if path != entities] == []
    entities.write_bytes(good)
    assert join(platform, lake, entities, out).returncode == 0


def test_full_disk_is_told_and_leaves_no_result(platform: Running, lake: Path, tmp_path: Path) -> None:
    count = 400_000
    times = pa.array([NOON_US] * count, pa.timestamp("us", "UTC"))
    big = tmp_path / "entities.parquet"
    pq.write_table(pa.table({"user_id": pa.array(range(count), pa.int64()), "event_time": times}), big)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = ["-m", "control_plane.cli.app", "offline", "get-historical", "--entities", str(big), "--service", SERVICE]
    done = subprocess.run(
        [sys.executable, *words, "--out", str(tmp_path / "out.parquet"), "--lake", str(lake)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=platform.folder,
        env=environment(),
        preexec_fn=limit,  # the limit must not bind this process
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "[DISK_FULL]" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["entities.parquet"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_command_that_is_broken_off_leaves_nothing(
    platform: Running, lake: Path, tmp_path: Path, number: signal.Signals
) -> None:
    count = 3_000_000
    times = pa.array([NOON_US + DAY_US] * count, pa.timestamp("us", "UTC"))
    big = tmp_path / "entities.parquet"
    pq.write_table(pa.table({"user_id": pa.array(range(count), pa.int64()), "event_time": times}), big)
    words = ["-m", "control_plane.cli.app", "offline", "get-historical", "--entities", str(big), "--service", SERVICE]
    words += ["--out", str(tmp_path / "out.parquet"), "--lake", str(lake)]
    with subprocess.Popen(
        [sys.executable, *words], cwd=platform.folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: any(tmp_path.glob("*.partial")) or process.poll() is not None, "the result is begun")
        process.send_signal(number)
        assert process.wait(60) != 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    until(lambda: [path.name for path in tmp_path.iterdir()] == ["entities.parquet"], "the half result is gone")

    def pins() -> dict[str, int]:
        catalogue = Catalogue(lake_config(lake))
        try:
            return {name: at for name, at in catalogue.view_table(TABLE).pins().items() if name.startswith("run_")}
        finally:
            catalogue.close()

    until(lambda: pins() == {}, "the snapshots are let go")


def test_folder_without_a_lake_is_refused(platform: Running, entities: Path, tmp_path: Path) -> None:
    done = join(platform, tmp_path / "nothing", entities, tmp_path / "out.parquet")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "[NO_LAKE]" in done.stderr


def test_sweep_finds_nothing_in_a_clean_lake_and_refuses_a_young_age(platform: Running, lake: Path) -> None:
    swept = ask(platform, lake, "offline", "sweep", "--older-than", "1h", "-o", "json")
    assert document(swept)["file_count"] == 0
    young = ask(platform, lake, "offline", "sweep", "--older-than", "1m")
    assert "[OUT_OF_RANGE]" in young.stderr


def test_service_gives_the_digest_of_the_local_engine(platform: Running, entities: Path, tmp_path: Path) -> None:
    """By the service of the platform, over the platform's own lake, with files below the import root."""
    lake = platform.folder / ".headrace" / "batch"
    lake.mkdir(exist_ok=True)
    catalogue = Catalogue(lake_config(lake))
    append(catalogue, [(1, 0, "DE", 19.9, 1), (2, 0, "FR", None, 1), (1, 1, "DE", 42.5, 2)], 0)
    catalogue.close()
    inside = platform.folder / "files" / "entities.parquet"
    inside.write_bytes(entities.read_bytes())
    words = ("offline", "get-historical", "--service", SERVICE, "--as-of", "2027-01-01Z", "-o", "json")
    service = (*words, "--engine", "service", "--entities")
    there = document(platform.headrace(*service, str(inside), "--out", str(inside.with_name("out.parquet"))))
    here = document(platform.headrace(*words, "--entities", str(entities), "--out", str(tmp_path / "out.parquet")))
    assert (there["digest"], there["row_count"]) == (here["digest"], 3)
    assert pq.read_table(there["output"]).equals(pq.read_table(here["output"]))
    outside = platform.headrace(*service, str(entities), "--out", str(inside.with_name("no.parquet")))
    assert (outside.returncode, "URI_OUTSIDE_ROOTS" in outside.stderr) == (1, True)


def test_skew_run_counts_what_was_served_otherwise(platform: Running, lake: Path) -> None:
    key = encode_key([int(Scalar.I64)], [2])
    digest = transform_digest_of(platform)
    at_us = NOON_US + DAY_US
    visits = FeatureRef("shop.users.activity", 1, "visits")
    answers = [
        Served(key, visits, Answer(rules.PRESENT, number.to_bytes(4, "little"), NOON_US), at_us, 0, 1, 2, 1, digest)
        for number in (1, 7)
    ]
    catalogue = Catalogue(lake_config(lake))
    ServedLog(catalogue).append(served_rows(answers))
    catalogue.close()
    report = document(ask(platform, lake, "skew", "run", "-o", "json"))
    assert (report["rows"], report["mismatches"], report["causes"]) == (2, 1, {"code": 1})
    told = ask(platform, lake, "skew", "run", "--fail-on", "parity")
    assert told.returncode == 3
    assert "2 served values derived again, 1 differ" in told.stdout
    for words, reason in (
        (("--since", "noon"), "TIME"),
        (("--fail-on", "all"), "FAIL_ON"),
        (("--feature", "x"), "INVALID_NAME"),
    ):
        bad = ask(platform, lake, "skew", "run", *words)
        assert (bad.returncode, bad.stderr.count("\n"), f"[{reason}]" in bad.stderr) == (1, 1, True)


def transform_digest_of(platform: Running) -> bytes:
    with RegistryClient(platform.endpoints["control"]) as client:
        view = client.get(DefinitionKind.FEATURE_VIEW, "shop.users.activity")
    assert isinstance(view, RegisteredView)
    return view.transform_digest
