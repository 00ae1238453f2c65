"""A whole platform with views that look others up, functions of a module beside the definitions, and a SELECT."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.platforms import Running, headrace, running

FUNCTIONS = '''
import pyarrow.compute as pc


def band(batch):
    """Whether a price is high; null without one."""
    return pc.if_else(pc.less(batch.column("item_price"), 10.0), "low", "high")
'''
DEFINITIONS = """
from shop_functions import band
from headrace.definitions import (
    Column, Entity, EntityKey, Feature, FeatureView, ServiceEntry, Source, SourceKind, latest, window,
)
from headrace.definitions import Function

prices = Source("shop.web.prices", owner="shop", columns=[
    Column("event_time", "timestamp_us"), Column("item_id", "string"), Column("price", "f64")])
clicks = Source("shop.web.clicks", owner="shop", columns=[
    Column("event_time", "timestamp_us"), Column("user_id", "i64"), Column("item", "string")])
totals = Source(
    "shop.web.totals", owner="shop", kind=SourceKind.SQL, inputs={"orders": "orders/*.parquet"},
    query="SELECT user_id, max(seen_at) AS event_time, sum(amount)::BIGINT AS total FROM orders GROUP BY user_id",
    columns=[Column("event_time", "timestamp_us"), Column("user_id", "i64"), Column("total", "i64")])
item = Entity("shop.web.item", owner="shop", join_keys=[EntityKey("item_id", "string")])
user = Entity("shop.web.user", owner="shop", join_keys=[EntityKey("user_id", "i64")])
catalog = FeatureView("shop.web.catalog", owner="shop", entity=item.name, source=prices.name,
                      features=[Feature("price", "f64", latest("price"))])
spending = FeatureView(
    "shop.web.spending", owner="shop", entity=user.name, source=clicks.name,
    lookups=[ServiceEntry(catalog.name, join_key_mapping={"item_id": "item"}, output_prefix="item_")],
    functions=[Function("band", "string", band, ["item_price"])],
    features=[Feature("spent", "f64", window("sum", "item_price", over="3650d", hop="1d")),
              Feature("band", "string", latest("band"))])
bought = FeatureView("shop.web.bought", owner="shop", entity=user.name, source=totals.name,
                     features=[Feature("total", "i64", latest("total"))])
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop_functions.py").write_text(FUNCTIONS)
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "orders").mkdir()
    orders = {"user_id": [1, 1, 2], "seen_at": pa.array([5, 7, 6], pa.timestamp("us", "UTC")), "amount": [10, 20, 40]}
    pq.write_table(pa.table(orders), folder / "orders" / "one.parquet")
    with running(folder, "--function-module", "shop_functions") as started:
        yield started


def done(shop: Running, *arguments: str) -> str:
    found = shop.headrace(*arguments)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_plan_apply_write_and_read(shop: Running) -> None:
    shown = done(shop, "plan", "definitions.py")
    assert "band by shop_functions:band: native: no, " in shown and " us a row" in shown
    made = json.loads(done(shop, "apply", "definitions.py", "-o", "json"))
    (cost,) = made["functions"]
    assert (cost["native"], cost["column"]) == (False, "band") and 0 < cost["us_per_row"] < 1_000
    prices: list[dict[str, Any]] = [{"item_id": "a", "price": 4.0}, {"item_id": "b", "price": 20.0}]
    clicks: list[dict[str, Any]] = [{"user_id": 1, "item": item} for item in ("a", "b", None)]
    for view, name, rows, time in (("catalog", "prices", prices, 1), ("spending", "clicks", clicks, 2)):
        lines = [row | {"event_time": f"2026-01-0{time}T00:00:0{at}Z"} for at, row in enumerate(rows)]
        file = shop.folder / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        done(shop, "write", f"shop.web.{view}", str(file))
    assert read(shop, "spending", "spent", "band") == {"spent": 24.0, "band": None}


def test_a_select_is_materialised(shop: Running) -> None:
    done(shop, "apply", "definitions.py")
    done(shop, "materialize", "shop.web.bought")
    assert read(shop, "bought", "total") == {"total": 30}


def test_describe_marks_functions_and_the_digest_can_be_asked_for(shop: Running) -> None:
    done(shop, "apply", "definitions.py")
    digest = done(shop, "function", "shop_functions:band").strip()
    found = json.loads(done(shop, "describe", "view", "shop.web.spending", "-o", "json"))
    (function,) = found["functions"]
    assert function == {
        "name": "band", "type": "string", "function": "shop_functions:band", "columns": ["item_price"],
        "digest": digest, "native": "no",
    }  # fmt: skip
    assert found["lookups"][0]["feature_view"] == "shop.web.catalog@v1"


def test_a_server_that_may_not_import_says_so(tmp_path: Path, shop: Running) -> None:
    for name in ("shop_functions.py", "definitions.py"):
        (tmp_path / name).write_text((shop.folder / name).read_text())
    with running(tmp_path) as other:
        assert other.headrace("apply", "definitions.py").returncode == 0, "the registry runs no code"
        written = other.headrace("write", "shop.web.spending", str(shop.folder / "clicks.jsonl"))
        assert "--function-module shop_functions" in written.stderr
    gone = headrace("function", "shop_functions:none", cwd=tmp_path)
    assert gone.returncode != 0 and "FUNCTION_NOT_FOUND" in gone.stderr


def read(shop: Running, view: str, *features: str) -> dict[str, Any]:
    asked = [part for name in features for part in ("--feature", f"shop.web.{view}@v1:{name}")]
    document = json.loads(done(shop, "read", *asked, "--entity", "user_id=1", "-o", "json"))
    (row,) = document["rows"]
    return dict(zip(features, row["features"].values(), strict=True))
