"""Features of flights out of New York, for a model that predicts the delay of a departure."""

from datetime import timedelta

from headrace.definitions import (
    Column,
    Entity,
    EntityKey,
    Feature,
    FeatureService,
    FeatureView,
    Model,
    ServiceEntry,
    Source,
    latest,
)

OWNER = "flights"

airport = Entity("flights.airport.airport", owner=OWNER, join_keys=[EntityKey("airport", "string")])
carrier = Entity("flights.carrier.carrier", owner=OWNER, join_keys=[EntityKey("carrier", "string")])
plane = Entity("flights.plane.plane", owner=OWNER, join_keys=[EntityKey("tail_number", "string")])

weather_observations = Source(
    "flights.weather.observations",
    owner=OWNER,
    description="Hourly weather at the three airports of New York.",
    columns=[
        Column("airport", "string"),
        Column("event_time", "timestamp_us"),
        Column("temp", "f64"),
        Column("dewp", "f64"),
        Column("humid", "f64"),
        Column("wind_dir", "i32"),
        Column("wind_speed", "f64"),
        Column("wind_gust", "f64"),
        Column("precip", "f64"),
        Column("pressure", "f32"),
        Column("visib", "f32"),
    ],
)
airport_registry = Source(
    "flights.airport.registry",
    owner=OWNER,
    description="Airports of the United States.",
    columns=[
        Column("airport", "string"),
        Column("event_time", "timestamp_us"),
        Column("name", "string"),
        Column("lat", "f64"),
        Column("lon", "f64"),
        Column("alt_ft", "i32"),
        Column("utc_offset_h", "i32"),
        Column("dst", "string"),
        Column("tzone", "string"),
    ],
)
carrier_registry = Source(
    "flights.carrier.registry",
    owner=OWNER,
    columns=[Column("carrier", "string"), Column("event_time", "timestamp_us"), Column("name", "string")],
)
plane_registry = Source(
    "flights.plane.registry",
    owner=OWNER,
    description="Planes as the aviation authority registered them.",
    columns=[
        Column("tail_number", "string"),
        Column("event_time", "timestamp_us"),
        Column("built_year", "i32"),
        Column("type", "string"),
        Column("manufacturer", "string"),
        Column("model", "string"),
        Column("engines", "i32"),
        Column("seats", "i32"),
        Column("speed", "f64"),
        Column("engine", "string"),
    ],
)
departures = Source(
    "flights.ops.departures",
    owner=OWNER,
    description="One row per flight when it left, or when it should have left and was cancelled.",
    columns=[
        Column("airport", "string"),
        Column("carrier", "string"),
        Column("tail_number", "string"),
        Column("event_time", "timestamp_us"),
        Column("scheduled_time", "timestamp_us"),
        Column("dep_delay", "f64"),
        Column("cancelled", "bool"),
        Column("origin", "string"),
        Column("dest", "string"),
        Column("flight", "i32"),
        Column("distance", "i32"),
    ],
)
arrivals = Source(
    "flights.ops.arrivals",
    owner=OWNER,
    description="One row per flight that landed; the event time is departure plus air time.",
    columns=[
        Column("airport", "string"),
        Column("tail_number", "string"),
        Column("event_time", "timestamp_us"),
        Column("arr_delay", "f64"),
        Column("air_time", "f64"),
        Column("carrier", "string"),
        Column("origin", "string"),
        Column("dest", "string"),
    ],
)


def _features(source: Source, *names: str) -> list[Feature]:
    """Features that are the newest value of the source's columns of the same names."""
    types = {column.name: column.type for column in source.columns}
    return [Feature(name, types[name], latest(name)) for name in names]


weather_hourly = FeatureView(
    "flights.weather.hourly",
    owner=OWNER,
    entity=airport.name,
    source=weather_observations.name,
    features=_features(
        weather_observations,
        *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
    ),
)
weather_alerts = FeatureView(
    "flights.weather.alerts",
    owner=OWNER,
    description="Worth nothing after a day, so what is replayed from 2013 answers EXPIRED.",
    entity=airport.name,
    source=weather_observations.name,
    features=[Feature("gust_alert", "f64", latest("wind_gust"))],
    ttl=timedelta(days=1),
)
airport_facts = FeatureView(
    "flights.airport.facts",
    owner=OWNER,
    entity=airport.name,
    source=airport_registry.name,
    features=_features(airport_registry, "name", "lat", "lon", "alt_ft", "utc_offset_h", "dst", "tzone"),
)
airport_departures = FeatureView(
    "flights.airport.last_departure",
    owner=OWNER,
    entity=airport.name,
    source=departures.name,
    features=_features(departures, "scheduled_time", "dep_delay", "cancelled", "carrier", "dest", "distance"),
)
airport_arrivals = FeatureView(
    "flights.airport.last_arrival",
    owner=OWNER,
    entity=airport.name,
    source=arrivals.name,
    features=_features(arrivals, "arr_delay", "air_time", "carrier", "origin"),
)
carrier_facts = FeatureView(
    "flights.carrier.facts",
    owner=OWNER,
    entity=carrier.name,
    source=carrier_registry.name,
    features=_features(carrier_registry, "name"),
)
carrier_departures = FeatureView(
    "flights.carrier.last_departure",
    owner=OWNER,
    entity=carrier.name,
    source=departures.name,
    features=_features(departures, "dep_delay", "cancelled", "origin", "dest", "flight"),
)
plane_facts = FeatureView(
    "flights.plane.facts",
    owner=OWNER,
    entity=plane.name,
    source=plane_registry.name,
    features=_features(
        plane_registry, "built_year", "type", "manufacturer", "model", "engines", "seats", "speed", "engine"
    ),
)
plane_departures = FeatureView(
    "flights.plane.last_departure",
    owner=OWNER,
    entity=plane.name,
    source=departures.name,
    features=_features(departures, "scheduled_time", "dep_delay", "cancelled", "origin", "dest", "distance"),
)
plane_arrivals = FeatureView(
    "flights.plane.last_arrival",
    owner=OWNER,
    entity=plane.name,
    source=arrivals.name,
    features=_features(arrivals, "arr_delay", "air_time", "origin", "dest"),
)

departure_delay = FeatureService(
    "flights.delay.departure",
    owner=OWNER,
    description="What is known about a flight before it leaves; the airport stands in it as origin and as destination.",
    entries=[
        ServiceEntry(weather_hourly.name, (), {"airport": "origin"}, "origin_weather_"),
        ServiceEntry(weather_alerts.name, (), {"airport": "origin"}, "origin_"),
        ServiceEntry(airport_facts.name, (), {"airport": "origin"}, "origin_"),
        ServiceEntry(airport_departures.name, (), {"airport": "origin"}, "origin_last_"),
        ServiceEntry(airport_facts.name, (), {"airport": "dest"}, "dest_"),
        ServiceEntry(airport_arrivals.name, (), {"airport": "dest"}, "dest_last_"),
        ServiceEntry(carrier_facts.name, (), {}, "carrier_"),
        ServiceEntry(carrier_departures.name, (), {}, "carrier_last_"),
        ServiceEntry(plane_facts.name, (), {"tail_number": "plane"}, "plane_"),
        ServiceEntry(plane_departures.name, (), {"tail_number": "plane"}, "plane_last_"),
        ServiceEntry(plane_arrivals.name, (), {"tail_number": "plane"}, "plane_last_arrival_"),
    ],
)

delay_model = Model("flights.delay.departure_delay", owner=OWNER, feature_service="flights.delay.departure@v1")
