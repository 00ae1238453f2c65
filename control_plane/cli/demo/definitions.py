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
    derived,
    latest,
    window,
)

OWNER = "flights"

airport = Entity("flights.airport.airport", owner=OWNER, join_keys=[EntityKey("airport", "string")])
carrier = Entity("flights.carrier.carrier", owner=OWNER, join_keys=[EntityKey("carrier", "string")])
plane = Entity("flights.plane.plane", owner=OWNER, join_keys=[EntityKey("tail_number", "string")])
route = Entity(
    "flights.route.route", owner=OWNER, join_keys=[EntityKey("origin", "string"), EntityKey("dest", "string")]
)

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

# Windows by the step in which they move: a finer step means more tiles in every row, so long windows take long steps.
WINDOWS = {"1h": "5m", "6h": "15m", "1d": "1h", "7d": "6h", "30d": "1d"}


def _departure_delays(span: str, hop: str) -> list[Feature]:
    """How late the flights of a window left."""
    return [
        Feature(f"departures_{span}", "i64", window("count", over=span, hop=hop)),
        Feature(f"late_departures_{span}", "i64", window("sum", "if(dep_delay > 15.0, 1, 0)", over=span, hop=hop)),
        Feature(
            f"late_share_{span}",
            "f64",
            derived(f"cast(late_departures_{span} as f64) / cast(departures_{span} as f64)"),
        ),
        *_statistics("dep_delay", span, hop),
        Feature(f"dep_delay_stddev_{span}", "f64", window("stddev", "dep_delay", over=span, hop=hop)),
        Feature(f"dep_delay_p50_{span}", "f64", window("quantile", "dep_delay", quantile=0.5, over=span, hop=hop)),
    ]


def _arrival_delays(span: str, hop: str) -> list[Feature]:
    """How late the flights of a window landed."""
    return [
        Feature(f"arrivals_{span}", "i64", window("count", over=span, hop=hop)),
        *_statistics("arr_delay", span, hop),
    ]


def _statistics(column: str, span: str, hop: str) -> list[Feature]:
    return [
        Feature(f"{column}_mean_{span}", "f64", window("avg", column, over=span, hop=hop)),
        Feature(f"{column}_max_{span}", "f64", window("max", column, over=span, hop=hop)),
        Feature(f"{column}_p90_{span}", "f64", window("quantile", column, quantile=0.9, over=span, hop=hop)),
    ]


def _cancellations(span: str, hop: str) -> list[Feature]:
    """How many flights of a window did not leave."""
    return [
        Feature(f"flights_{span}", "i64", window("count", over=span, hop=hop)),
        Feature(f"cancelled_{span}", "i64", window("sum", "if(cancelled, 1, 0)", over=span, hop=hop)),
        Feature(
            f"cancelled_share_{span}", "f64", derived(f"cast(cancelled_{span} as f64) / cast(flights_{span} as f64)")
        ),
    ]


def _departure_windows(name: str, entity: Entity) -> FeatureView:
    return FeatureView(
        name,
        owner=OWNER,
        entity=entity.name,
        source=departures.name,
        filter="not cancelled",
        features=[feature for span, hop in WINDOWS.items() for feature in _departure_delays(span, hop)],
    )


def _arrival_windows(name: str, entity: Entity) -> FeatureView:
    return FeatureView(
        name,
        owner=OWNER,
        entity=entity.name,
        source=arrivals.name,
        features=[feature for span, hop in WINDOWS.items() for feature in _arrival_delays(span, hop)],
    )


def _cancellation_windows(name: str, entity: Entity) -> FeatureView:
    return FeatureView(
        name,
        owner=OWNER,
        entity=entity.name,
        source=departures.name,
        features=[feature for span in ("1d", "7d", "30d") for feature in _cancellations(span, WINDOWS[span])],
    )


airport_departure_delays = _departure_windows("flights.airport.departure_delays", airport)
carrier_departure_delays = _departure_windows("flights.carrier.departure_delays", carrier)
plane_departure_delays = _departure_windows("flights.plane.departure_delays", plane)
route_departure_delays = _departure_windows("flights.route.departure_delays", route)
carrier_arrival_delays = _arrival_windows("flights.carrier.arrival_delays", carrier)
route_arrival_delays = _arrival_windows("flights.route.arrival_delays", route)
airport_cancellations = _cancellation_windows("flights.airport.cancellations", airport)
carrier_cancellations = _cancellation_windows("flights.carrier.cancellations", carrier)

NEWEST_VALUES = [
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
]

departure_delay = FeatureService(
    "flights.delay.departure",
    owner=OWNER,
    description="What is known about a flight before it leaves; the airport stands in it as origin and as destination.",
    entries=[
        *NEWEST_VALUES,
        ServiceEntry(airport_departure_delays.name, (), {"airport": "origin"}, "origin_"),
        ServiceEntry(airport_cancellations.name, (), {"airport": "origin"}, "origin_"),
        ServiceEntry(carrier_departure_delays.name, (), {}, "carrier_"),
        ServiceEntry(carrier_cancellations.name, (), {}, "carrier_"),
        ServiceEntry(carrier_arrival_delays.name, (), {}, "carrier_"),
        ServiceEntry(plane_departure_delays.name, (), {"tail_number": "plane"}, "plane_"),
        ServiceEntry(route_departure_delays.name, (), {}, "route_"),
        ServiceEntry(route_arrival_delays.name, (), {}, "route_"),
    ],
)
newest_values = FeatureService(
    "flights.delay.newest_values",
    owner=OWNER,
    description="The part of flights.delay.departure that needs no window.",
    entries=NEWEST_VALUES,
)

delay_model = Model("flights.delay.departure_delay", owner=OWNER, feature_service="flights.delay.departure@v1")
