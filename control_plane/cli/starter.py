"""The starter project that `headrace init` writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headrace.errors import FailedPrecondition

DEFINITIONS: Final = '''"""Features of the shop's users, for the model that ranks its home page."""

from headrace.definitions import (
    Column,
    Entity,
    EntityKey,
    Feature,
    FeatureService,
    FeatureView,
    ServiceEntry,
    Source,
    SourceKind,
    latest,
)

user = Entity("shop.users.user", owner="shop", join_keys=[EntityKey("user_id", "i64")])

activity_events = Source(
    "shop.users.activity_events",
    owner="shop",
    description="What a user did, one row per visit.",
    kind=SourceKind.FILE,
    uri="data/activity.csv",
    event_time_column="happened_at",
    columns=[
        Column("user_id", "i64"),
        Column("happened_at", "timestamp_us"),
        Column("country", "string"),
        Column("basket_value", "f64"),
        Column("visits", "i32"),
    ],
)

activity = FeatureView(
    "shop.users.activity",
    owner="shop",
    entity="shop.users.user",
    source="shop.users.activity_events",
    features=[
        Feature("country", "string", latest("country")),
        Feature("basket_value", "f64", latest("basket_value")),
        Feature("visits", "i32", latest("visits")),
    ],
)

ranking = FeatureService(
    "shop.ranking.homepage",
    owner="shop",
    entries=[ServiceEntry("shop.users.activity")],
)
'''
ACTIVITY: Final = """user_id,happened_at,country,basket_value,visits
1,2026-01-05T08:15:00Z,DE,19.90,1
2,2026-01-05T09:40:00Z,FR,,1
1,2026-01-06T18:05:00+01:00,DE,42.50,2
3,2026-01-06T20:30:00Z,,7.25,1
"""
MORE_ACTIVITY: Final = """\
{"user_id": 2, "event_time": "2026-01-07T07:00Z", "country": "FR", "basket_value": 9, "visits": 2}
{"user_id": 4, "event_time": "2026-01-07T07:10:00Z", "country": "IT", "basket_value": null, "visits": 1}
"""
README: Final = """# Starter project

`definitions.py` says what there is: an entity, a source, a view of it and the feature service that a model reads.
Run these in this folder; the first one stays in the foreground, so give it a terminal of its own.

    headrace up
    headrace plan definitions.py
    headrace apply definitions.py
    headrace materialize shop.users.activity
    headrace write shop.users.activity data/more_activity.jsonl
    headrace read shop.ranking.homepage --entity user_id=1,2,3,4,5

`materialize` brings the rows of the source online, `write` adds rows by hand. User 5 has no row, so its values are
MISSING; user 2 had no basket at first. Change `definitions.py` and `headrace plan` says what would happen.
"""
_FILES: Final = {
    "definitions.py": DEFINITIONS,
    "data/activity.csv": ACTIVITY,
    "data/more_activity.jsonl": MORE_ACTIVITY,
    "README.md": README,
}


def write_starter(folder: Path) -> Iterator[Path]:
    """Writes the project into a new or empty folder; gives each path as it is written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FailedPrecondition(
            f"{folder} is not an empty folder; name a new one",
            reason="FOLDER_NOT_EMPTY",
            field="DIR",
            metadata={"folder": str(folder)},
        )
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        yield path
