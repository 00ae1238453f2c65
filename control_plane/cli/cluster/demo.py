"""`headrace cluster up --demo`: two days of real flights as a live stream, with freshness and parity as it goes."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from control_plane.cli.cluster.feed import Feed, make_topics, now_us
from control_plane.cli.cluster.freshness import Freshness
from control_plane.cli.cluster.live_parity import FLIGHTS, Compared, LiveParity
from control_plane.cli.cluster.live_year import (
    DURATION,
    HISTORY,
    SOURCES,
    START,
    Clock,
    SourceEvents,
    live_year,
    streaming,
)
from control_plane.cli.cluster.stream_metrics import stream_state
from control_plane.cli.definition_commands import await_served
from control_plane.cli.demo import definitions as flight_definitions
from control_plane.cli.demo.events import ZONE, load_year
from control_plane.cli.demo.planted import Planted, plant
from control_plane.cli.demo.replay import Difference
from control_plane.cli.demo.screen import Screen
from control_plane.cli.session import Session
from control_plane.cli.up import Platform
from headrace.client import Client, RegistryClient
from headrace.definitions import load
from headrace.errors import InvalidArgument

SPEED: Final = 300.0  # flight seconds a second: a day in five minutes
SPEED_MAX: Final = 10_000.0
COMPARE_S: Final = 10.0
WAIT_S_MAX: Final = 0.2  # between two looks at the children
SECONDS_AN_HOUR: Final = 3_600
MICROSECONDS: Final = 1_000_000
WHEN: Final = "%H:%M on %d %B %Y"
EXIT_OK: Final = 0
EXIT_DIFFERENT: Final = 1


@dataclass(slots=True)
class Totals:
    """What was compared and measured so far."""

    comparison_count: int = 0
    value_count: int = 0
    ages_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class LiveDemo:
    """Replays until the last event; the cluster then runs on until Ctrl-C."""

    session: Session
    speed: float = SPEED
    replicas: int = 1
    compare_s: float = COMPARE_S
    is_planted: bool = False  # a wrong row, for tests that see it found
    totals: Totals = field(default_factory=Totals)
    screen: Screen = field(init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.speed <= SPEED_MAX:
            raise InvalidArgument(
                f"--speed {self.speed:g} is not 1 to {SPEED_MAX:g} flight seconds a second",
                reason="DEMO_SPEED",
                field="--speed",
            )
        self.screen = Screen(self.session.out)

    def __call__(self, running: Platform) -> int:
        """The exit code where it ends by itself: 0 after the last event, 1 at the first difference."""
        endpoints = running.endpoints
        year = load_year()
        with ExitStack() as stack:
            client = stack.enter_context(Client(endpoints.features))
            registry = stack.enter_context(RegistryClient(endpoints.control))
            topics = {source: f"demo.{source}" for source in SOURCES}
            make_topics(endpoints.kafka, [*topics.values()], self.replicas)
            definitions = streaming(load(Path(flight_definitions.__file__)), topics)
            applied = registry.apply(definitions)
            await_served(client, definitions, applied)
            self.screen.say(f"registered {len(applied.changes)} definitions over {len(topics)} topics")
            clock = Clock(now_us(), self.speed)
            live = live_year(year, clock)
            feed = Feed(endpoints.kafka, [SourceEvents(one, live) for one in definitions.sources], topics)
            parity = LiveParity(client, definitions, live, clock)
            self._tell_start(parity)
            stack.callback(self._conclude)
            if self._send_history(feed, parity, clock, endpoints.metrics_pipeline):
                return EXIT_DIFFERENT
            if self.is_planted:
                plant(client, Planted.NEWEST, now_us())
            freshness = Freshness(client, now_us)
            stack.callback(freshness.close)
            return self._follow(running, feed, parity, freshness, clock)

    def _tell_start(self, parity: LiveParity) -> None:
        hours = DURATION.total_seconds() / SECONDS_AN_HOUR
        self.screen.say(
            f"now is {START.tz_convert(ZONE):{WHEN}} in New York; the {hours:.0f} hours of flights that follow take "
            f"{hours * SECONDS_AN_HOUR / self.speed / 60:.1f} minutes at {self.speed:g} times their speed"
        )
        self.screen.say(
            f"parity: {parity.feature_count} features of the next {FLIGHTS} flights, served from the stream, against "
            "what pandas and NumPy compute in a batch over the events that were sent; freshness: from the time of an "
            "event until a read shows it"
        )

    def _send_history(self, feed: Feed, parity: LiveParity, clock: Clock, metrics: str) -> list[Difference]:
        started = time.monotonic()
        count = feed.send_until(clock.start_us)
        compared = parity.compare(clock.start_us)
        self.screen.say(
            f"{count:,} events of the {HISTORY.days} days before were sent and read {time.monotonic() - started:.1f} s "
            f"later; {self._told(compared)}"
        )
        state = stream_state(metrics)
        if state is not None and state.dead_letter_count:
            self.screen.say(
                f"{state.dead_letter_count} messages had flights without a tail number: those stand in the dead-letter "
                "topic for planes, and feed airports, carriers and routes"
            )
        return compared.differences

    def _follow(self, running: Platform, feed: Feed, parity: LiveParity, freshness: Freshness, clock: Clock) -> int:
        feed.send_until(now_us())  # what happened during the comparison
        feed.tell(freshness.sent)
        compare_s, count = time.monotonic() + self.compare_s, 0
        while (next_us := feed.next_us()) is not None:
            if not running.ended.empty():
                raise running.death(running.ended.get())
            time.sleep(min(WAIT_S_MAX, max(0.0, (next_us - now_us()) / MICROSECONDS)))
            sent_us = now_us()
            count += feed.send_until(sent_us)
            if time.monotonic() < compare_s and feed.next_us() is not None:
                continue
            freshness.hold(is_held=True)
            compared = parity.compare(sent_us)
            self._say_state(clock.flight_us(sent_us), count, freshness, compared)
            if compared.differences:
                return EXIT_DIFFERENT
            count = feed.send_until(now_us())  # late by the comparison: no samples
            freshness.hold(is_held=False)
            compare_s = time.monotonic() + self.compare_s
        self.screen.say("that was the last flight; the cluster runs on until Ctrl-C")
        return EXIT_OK

    def _say_state(self, flight_us: int, count: int, freshness: Freshness, compared: Compared) -> None:
        ages_s = freshness.take()
        self.totals.ages_s += ages_s
        when = pd.Timestamp(flight_us, unit="us", tz="UTC").tz_convert(ZONE)
        self.screen.say(f"{when:{WHEN}}: {count:,} events; freshness {ages_text(ages_s)}; {self._told(compared)}")

    def _told(self, compared: Compared) -> str:
        """Counts a comparison and says how it went, differences in a table of their own."""
        self.totals.comparison_count += 1
        self.totals.value_count += compared.value_count
        if not compared.differences:
            return f"{compared.value_count:,} values equal"
        flights = [compared.flights.iloc[one.flight] for one in compared.differences]
        names = [f"{flight.carrier}{flight.flight} {flight.scheduled_time:%Y-%m-%d %H:%M}Z" for flight in flights]
        self.screen.differences(
            "served values differ from the batch; the first:", ("served", "batch"), names, compared.differences
        )
        return "DEMO FAILED"

    def _conclude(self) -> None:
        totals = self.totals
        self.screen.say(
            f"compared {totals.value_count:,} values in {totals.comparison_count} comparisons; freshness "
            f"{ages_text(totals.ages_s)}"
        )


def ages_text(ages_s: Sequence[float]) -> str:
    """Percentiles for a person."""
    if not ages_s:
        return "not measured"
    p50, p99 = np.percentile(ages_s, (50, 99))
    return f"p50 {p50:.3f} s, p99 {p99:.3f} s of {len(ages_s)} events"
