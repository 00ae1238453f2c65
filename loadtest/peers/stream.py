"""Measures the pipeline from Kafka to readable features: events per second and core, and how fresh a feature is.

Command: python -m loadtest.peers.stream [--quick] [--seed N]. The last line printed is one JSON object. A broker, a
control plane, a pipeline worker and a feature server run on loopback beside the producer of this process; each event
updates 20 features of one of 100,000 keys. Events per core count the CPU time of worker and server together. Freshness
is from just before an event is produced to the first read that shows it, at half of the rate that was measured.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from headrace.client import Client, RegistryClient
from headrace.errors import Unavailable
from loadtest.events.encoding import arrow_message, json_messages
from loadtest.events.generator import Generator
from loadtest.events.shapes import Shape, definitions, view_name
from loadtest.peers.processes import ROOT
from loadtest.peers.result import Figure, Report, commit, machine, percentile, rounded
from loadtest.peers.stream_stage import Stage
from tools.kafka import Brokers

RESULT: Final = ROOT / "loadtest" / "results" / "stream.json"
SEED: Final = 2013
KEYS: Final = 100_000
EVENTS_PER_MESSAGE: Final = 1_000
TICK_S: Final = 0.05  # of the open loop that loads the pipeline while freshness is measured
LOAD_SHARE: Final = 0.5
LATE_MAX_S: Final = 30.0
PROBE_KEYS: Final = 10_000_000  # from here on, no other event has them
FORMS: Final = ("arrow", "json")


class Scale(NamedTuple):
    """Events of a round by form, and probes of freshness."""

    name: str
    arrow_events: int
    json_events: int
    rounds: int
    probes: int


QUICK: Final = Scale("quick", 100_000, 30_000, 2, 50)
FULL: Final = Scale("full", 1_000_000, 300_000, 5, 1_000)


class Round(NamedTuple):
    """What a backlog took."""

    events: int
    wall_s: float
    cpu_s: float


def backlog(stage: Stage, producer: Producer, topic: str, values: Sequence[bytes], events: int) -> Round:
    """Produces a backlog while the worker stands still, then measures how the pipeline works it off."""
    before = stage.applied()
    with stage.held_worker():
        for value in values:
            producer.produce(topic, value)
            producer.poll(0)
        if producer.flush(LATE_MAX_S):
            raise Unavailable("the broker did not take the backlog", reason="KAFKA_UNAVAILABLE")
        cpu_s = stage.cpu_s()
        start = time.perf_counter()
    stage.wait_applied(before + events)
    return Round(events, time.perf_counter() - start, stage.cpu_s() - cpu_s)


def values_of(batch: pa.RecordBatch, form: str) -> list[bytes]:
    """Messages of events."""
    if form == "json":
        return list(json_messages(batch))
    parts = range(0, batch.num_rows, EVENTS_PER_MESSAGE)
    return [arrow_message(batch.slice(start, EVENTS_PER_MESSAGE)) for start in parts]


def freshness(stage: Stage, producer: Producer, generator: Generator, rate: float, probes: int) -> list[float]:
    """Seconds from produce to read of probes, one at a time, while other events come at a rate."""
    topic, per_tick = "stream-arrow", max(1, int(rate * TICK_S))
    found = []
    with Client(stage.address) as client:
        prepared = client.prepare(features=[f"{view_name(Shape.SENSORS, 'sensor_id')}@v1:count_7d"])
        tick = time.perf_counter()
        for probe in range(probes):
            event = generator.batch(1)
            key = PROBE_KEYS + probe
            place = event.schema.get_field_index("sensor_id")
            event = event.set_column(place, "sensor_id", pa.array([key]))
            event = event.set_column(0, "event_time", pa.array([time.time_ns() // 1_000], pa.timestamp("us", "UTC")))
            start = time.perf_counter()
            producer.produce(topic, arrow_message(event))
            while True:
                now = time.perf_counter()
                if now - start > LATE_MAX_S:
                    raise Unavailable(f"an event was not readable after {LATE_MAX_S} s", reason="PIPELINE_STUCK")
                while tick <= now:
                    producer.produce(topic, arrow_message(generator.batch(per_tick)))
                    tick += TICK_S
                producer.poll(0)
                answer = client.get_online_features(prepared, entities={"sensor_id": np.array([key])}, timeout_s=5)
                if int(answer.numpy(answer.columns[-1])[0]):
                    break
            found.append(time.perf_counter() - start)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints progress and the JSON line; 0 where every target is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events and fewer rounds; keeps no file")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)
    scale = QUICK if chosen.quick else FULL
    with tempfile.TemporaryDirectory(prefix="headrace-stream-") as folder:
        figures = measured(Path(folder), scale, chosen.seed)
    described = {**scale._asdict(), "seed": chosen.seed, "keys": KEYS, "features_per_event": 20, "brokers": 1}
    report = Report("stream", described, figures, commit(ROOT), machine())
    if not chosen.quick:
        RESULT.write_text(report.to_json() + "\n")
    _say(report.to_json())
    return 0 if report.ok else 1


def measured(folder: Path, scale: Scale, seed: int) -> tuple[Figure, ...]:
    """All figures that exist."""
    rates: dict[str, list[Round]] = {}
    with Brokers(folder / "kafka", 1) as brokers:
        admin = AdminClient({"bootstrap.servers": brokers.bootstrap, "log_level": 0})
        settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(32 << 20)}
        topics = [NewTopic(f"stream-{form}", 1, 1, config=settings) for form in FORMS]
        for future in admin.create_topics(topics).values():
            future.result(30)
        producer = Producer(
            {
                "bootstrap.servers": brokers.bootstrap,
                "log_level": 0,
                "linger.ms": 1,
                "queue.buffering.max.messages": 10**6,
            }
        )
        for form in FORMS:
            with Stage(folder / form, brokers.bootstrap, f"{form}.") as stage:
                with RegistryClient(stage.registry) as client:
                    client.apply(definitions(Shape.SENSORS, f"stream-{form}", form))
                stage.wait_read(f"stream-{form}", 1)
                generator = Generator(
                    Shape.SENSORS, seed, rate=50_000, start_us=time.time_ns() // 1_000 - 600_000_000,
                    key_counts={"sensor_id": KEYS},
                )  # fmt: skip
                count = scale.arrow_events if form == "arrow" else scale.json_events
                rates[form] = []
                for _ in range(scale.rounds):
                    values = values_of(generator.batch(count), form)
                    rates[form].append(backlog(stage, producer, f"stream-{form}", values, count))
                    last = rates[form][-1]
                    _say(f"stream: {form}: {count} events, {last.wall_s:.2f} s, CPU {last.cpu_s:.2f} s")
                if form == "arrow":
                    rate = LOAD_SHARE * float(np.median([one.events / one.wall_s for one in rates[form]]))
                    delays = freshness(stage, producer, generator, rate, scale.probes)
                    _say(f"stream: freshness p50 {percentile(delays, 0.5):.3f} s at {rate:.0f} events/s")
    return figures_of(rates, delays, rate)


def figures_of(rates: dict[str, list[Round]], delays: Sequence[float], rate: float) -> tuple[Figure, ...]:
    """The figures with their targets."""
    per_core = {form: tuple(one.events / one.cpu_s for one in found) for form, found in rates.items()}
    walls = {
        form: rounded(float(np.median([one.events / one.wall_s for one in found]))) for form, found in rates.items()
    }
    alone = "none: CPU of worker and server together"
    return (
        Figure(
            "stream_events_per_s_per_core_arrow", per_core["arrow"], "higher", "events/s", alone, 100_000,
            f"{EVENTS_PER_MESSAGE} events a message", {"wall_events_per_s": walls["arrow"]},
        ),
        Figure(
            "stream_events_per_s_per_core_json", per_core["json"], "higher", "events/s", alone, 12_000,
            "one event a message", {"wall_events_per_s": walls["json"]},
        ),
        Figure(
            "freshness_p99_s", (percentile(delays, 0.99),), "lower", "s", "none: a bound", 1.0,
            "produce to the client's read, at half of the rate of a backlog",
            {"p50_s": rounded(percentile(delays, 0.5)), "events_per_s": rounded(rate), "probes": float(len(delays))},
        ),
    )  # fmt: skip


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
