"""`headrace demo`: a year of real flights through a platform of its own, every value computed a second time."""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from control_plane.cli.definition_commands import await_served
from control_plane.cli.demo import definitions as flight_definitions
from control_plane.cli.demo.batch_step import BatchStep
from control_plane.cli.demo.events import FLIGHT_COUNT, LAST_MOMENT, WINDOW_EVENTS_FROM, ZONE, Year, load_year
from control_plane.cli.demo.expected import latest
from control_plane.cli.demo.history_step import HistoryStep
from control_plane.cli.demo.planted import Planted, plant
from control_plane.cli.demo.replay import (
    DIFFERENCES_SHOWN,
    Checkpoint,
    Difference,
    Replay,
    Totals,
    Wanted,
    as_of_times,
    checkpoints,
)
from control_plane.cli.demo.screen import Screen
from control_plane.cli.demo.tables import (
    lookups,
    service_of,
    time_us,
    typed,
    window_lookups,
    window_names,
    write_tables,
)
from control_plane.cli.endpoints import Endpoints
from control_plane.cli.output import Format, print_error
from control_plane.cli.session import Session
from control_plane.cli.up import StopAsked, UpOptions, platform, stoppable
from headrace.client import Client, PreparedFeatures, RegistryClient, ValueState
from headrace.definitions import DefinitionSet, load
from headrace.errors import CallerError, InternalError

# A year in a minute: large commits leave fewer files, of which each holds one day.
DRAIN_WORDS: Final = ("--cycle-bytes", str(1 << 30))
DAY_US: Final = 86_400_000_000
UNKNOWN_FEATURE: Final = "flights.plane.facts@v1:seatz"
EXIT_OK: Final = 0
EXIT_DIFFERENT: Final = 1
EXIT_STOPPED: Final = 130  # as shells report a Ctrl-C


def run(session: Session, planted: Planted | None) -> int:
    """Runs the demonstration; 0 and DEMO OK only when every comparison was made and held."""
    try:
        with stoppable(), ExitStack() as stack:
            # Always a new folder: rows of an earlier replay would be newer than this one's first checkpoints.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-demo-")))
            screen = Screen(session.out)
            year = stack.enter_context(ThreadPoolExecutor(1)).submit(load_year)
            options = UpOptions(any_ports=True, offline=True, drain_words=DRAIN_WORDS)
            running = stack.enter_context(platform(folder, options))
            screen.say(f"platform up: feature server at {running.endpoints.features}")
            client = stack.enter_context(Client(running.endpoints.features))
            registry = stack.enter_context(RegistryClient(running.endpoints.control))
            history = HistoryStep(screen, _session_of(session, folder, running.endpoints), folder)
            return Demo(screen, client, registry, history, planted).run(year.result())
    except StopAsked:
        return EXIT_STOPPED


def _session_of(session: Session, folder: Path, endpoints: Endpoints) -> Session:
    """Of the commands that a person would type beside this platform."""
    return replace(session, environment={}, data=folder, endpoint=None, lake=Path(endpoints.lake))


class Demo:
    """The steps of the demonstration against running servers."""

    def __init__(
        self, screen: Screen, client: Client, registry: RegistryClient, history: HistoryStep, planted: Planted | None
    ) -> None:
        self._screen = screen
        self._client = client
        self._registry = registry
        self._history = history
        self._planted = planted
        self._shift_us = time.time_ns() // 1_000 - time_us(LAST_MOMENT)

    def run(self, year: Year) -> int:
        """All steps; the exit code."""
        definitions = load(Path(flight_definitions.__file__))
        self._register(definitions)
        newest = self._client.prepare("flights.delay.newest_values@v1")
        every = self._client.prepare("flights.delay.departure@v1")
        stops = checkpoints(year)
        tables = write_tables(year, definitions, self._shift_us)
        wanted = self._newest_wanted(year, definitions, stops, newest)
        windows = window_lookups(year, definitions, service_of(definitions, "flights.delay.departure"), self._shift_us)
        self._screen.say(
            f"{every.feature_service} has {len(every.columns)} features by {', '.join(every.join_keys)}, "
            f"{len(window_names(windows))} of them over windows of an hour to 30 days"
        )
        self._screen.say(
            f"reads are answered as of now, so every event time moves by {self._shift_us / DAY_US:,.1f} days: now is "
            f"{LAST_MOMENT.tz_convert(ZONE):%H:%M on %d %B %Y} in New York; windows get the events from "
            f"{WINDOW_EVENTS_FROM:%d %B} on"
        )
        replay = Replay(self._client, newest, every, year, tables, self._shift_us, self._planting(stops))
        differences = self._replay(replay, year, stops, wanted)
        if not differences:
            written_us = time_us(stops[-1].time) + self._shift_us
            step = BatchStep(self._screen, replay, year.flights, stops[-1])
            differences = step.run(every, wanted, windows, written_us)
        if differences:
            return self._report_differences(year, differences, "pandas and NumPy")
        differences = self._history.run(replay, is_wrong=self._planted is Planted.HISTORY)
        if differences:
            return self._report_differences(year, differences, "history")
        self._show_unknown_feature(year)
        return self._conclude(replay.totals)

    def _register(self, definitions: DefinitionSet) -> None:
        applied = self._registry.apply(definitions)
        await_served(self._client, definitions, applied)
        self._screen.say(f"registered {len(applied.changes)} definitions")

    def _newest_wanted(
        self, year: Year, definitions: DefinitionSet, stops: Sequence[Checkpoint], prepared: PreparedFeatures
    ) -> Wanted:
        looked = lookups(year, definitions, service_of(definitions, "flights.delay.newest_values"))
        expected = latest(year.flights, as_of_times(stops), looked, LAST_MOMENT)
        self._screen.say(f"pandas computed {len(year.flights):,} x {len(prepared.columns)} newest values by merge_asof")
        states = {name: column.to_numpy(np.uint8) for name, column in expected.states.items()}
        return Wanted(typed(expected, prepared), states)

    def _replay(self, replay: Replay, year: Year, stops: Sequence[Checkpoint], wanted: Wanted) -> list[Difference]:
        """Stops at the first checkpoint that differs."""
        months = year.flights["scheduled_time"].dt.tz_convert(ZONE).dt.strftime("%Y-%m")
        month = months[0]
        for differences in replay.run(stops, wanted):
            if differences:
                return differences
            done = replay.totals.flight_count
            if done == len(months) or months[done] != month:
                self._screen.say(f"{month}: {replay.totals.row_count:,} rows written, {done:,} flights read, all equal")
                month = months[min(done, len(months) - 1)]
        return []

    def _planting(self, stops: Sequence[Checkpoint]) -> Callable[[Checkpoint], None]:
        """What happens after the writes of a checkpoint: nothing, but for a test."""
        at = {Planted.NEWEST: stops[0], Planted.WINDOW: stops[-1]}

        def after(stop: Checkpoint) -> None:
            if self._planted is not None and stop == at.get(self._planted):
                plant(self._client, self._planted, time_us(stop.time) + self._shift_us)

        return after

    def _show_unknown_feature(self, year: Year) -> None:
        keys = {"tail_number": [year.flights["tail_number"].iloc[0]]}
        self._screen.say(f"who asks for {UNKNOWN_FEATURE} sees:")
        try:
            self._client.get_online_features(features=[UNKNOWN_FEATURE], entities=keys)
        except CallerError as error:
            print_error(error, Format.TABLE, self._screen.out)
        else:
            raise InternalError(f"{UNKNOWN_FEATURE} was answered", reason="UNKNOWN_FEATURE_ANSWERED")

    def _report_differences(self, year: Year, differences: Sequence[Difference], other: str) -> int:
        shown = differences[:DIFFERENCES_SHOWN]
        flights = [year.flights.iloc[one.flight] for one in shown]
        names = [f"{flight.carrier}{flight.flight} {flight.scheduled_time:%Y-%m-%d %H:%M}Z" for flight in flights]
        self._screen.differences(f"served values differ from {other}; the first:", ("served", other), names, shown)
        self._screen.say("DEMO FAILED")
        return EXIT_DIFFERENT

    def _conclude(self, totals: Totals) -> int:
        states = ", ".join(f"{state.name} {totals.state_counts[state]:,}" for state in ValueState)
        self._screen.say(
            f"wrote {totals.row_count:,} rows in {totals.write_s:.1f} s ({totals.row_count / totals.write_s:,.0f}/s), "
            f"read {totals.value_count:,} values in {totals.read_s:.1f} s "
            f"({totals.value_count / totals.read_s:,.0f}/s)"
        )
        self._screen.say(f"states: {states}")
        self._screen.say(f"compared {totals.flight_count:,} of {FLIGHT_COUNT:,} flights, {totals.value_count:,} values")
        if totals.flight_count != FLIGHT_COUNT:
            self._screen.say("DEMO FAILED: not every flight was compared")
            return EXIT_DIFFERENT
        self._screen.out.write("DEMO OK\n")
        return EXIT_OK
