"""How much a run measures; printed with its figures."""

from dataclasses import asdict, dataclass
from typing import Final

from loadtest.peers.h2load import CONNECTIONS
from loadtest.rows import ZIPF_EXPONENT


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of one run; times in seconds. Keys are drawn from the compared entities, which every side holds."""

    name: str
    entities: int
    compared_entities: int
    rounds: int
    span_s: float
    calls: int
    plane_calls: int
    plane_span_s: float
    sdk_calls: int
    client_calls: int
    write_rows: int
    feast_write_rows: int
    memory_entities: int
    slo_s: float
    shapes: tuple[str, ...]
    table_bytes: int
    cold: bool

    def to_json(self) -> dict[str, object]:
        """What stands in the result."""
        out = asdict(self)
        return out | {"connections": CONNECTIONS, "in_flight_per_connection": 1, "zipf_exponent": ZIPF_EXPONENT}


# Feast keeps one Redis hash of 204 fields and one vector per entity, 18 kB: 100,000 of them are 1.8 GB, and fewer
# entities favour it. The quick scale is what loads in a minute the first time and from the dump in a second.
QUICK: Final = Scale(
    name="quick",
    entities=10_000,
    compared_entities=10_000,
    rounds=5,
    span_s=0.4,
    calls=1_000,
    plane_calls=2_400,
    plane_span_s=0.2,
    sdk_calls=2,
    client_calls=40,
    write_rows=50_000,
    feast_write_rows=400,
    memory_entities=50_000,
    slo_s=3.0,
    shapes=("1x200",),
    table_bytes=256 << 20,
    cold=False,
)
FULL: Final = Scale(
    name="full",
    entities=1_000_000,
    compared_entities=100_000,
    rounds=7,
    span_s=5.0,
    calls=20_000,
    plane_calls=80_000,
    plane_span_s=5.0,
    sdk_calls=20,
    client_calls=500,
    write_rows=1_500_000,
    feast_write_rows=4_000,
    memory_entities=500_000,
    slo_s=300.0,
    shapes=("1x200", "10x200", "100x200"),
    table_bytes=4 << 30,
    cold=True,
)
