"""`headrace demo`: a year of real flights through a platform of its own, every value compared with plain pandas."""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Final, TextIO

import numpy as np
import pyarrow as pa

from control_plane.cli.definition_commands import await_served
from control_plane.cli.demo import definitions as flight_definitions
from control_plane.cli.demo.events import FLIGHT_COUNT, ZONE, Year, load_year
from control_plane.cli.demo.expected import Expected, latest
from control_plane.cli.demo.replay import (
    Checkpoint,
    Difference,
    Replay,
    Totals,
    as_of_times,
    checkpoints,
    compare,
    lookups,
    typed,
    write_tables,
)
from control_plane.cli.output import Format, plain, print_error, print_table
from control_plane.cli.session import Session
from control_plane.cli.up import StopAsked, UpOptions, platform, stoppable
from headrace.client import Client, PreparedFeatures, RegistryClient, ValueState
from headrace.definitions import DefinitionSet, load
from headrace.errors import CallerError, InternalError

BATCH_FLIGHTS: Final = 100
BATCH_REPEATS: Final = 1_000  # of the batch, for percentiles up to the 99th
SHOWN_FLIGHTS: Final = 3
SHOWN_FEATURES: Final = 12
UNKNOWN_FEATURE: Final = "flights.plane.facts@v1:seatz"
EXIT_OK: Final = 0
EXIT_DIFFERENT: Final = 1
EXIT_STOPPED: Final = 130  # as shells report a Ctrl-C


def run(session: Session, plant_wrong_value: bool) -> int:
    """Runs the demonstration; 0 and DEMO OK only when every value of every flight was compared and equal."""
    try:
        with stoppable(), ExitStack() as stack:
            # Always a new folder: rows of an earlier replay would be newer than this one's first checkpoints.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-demo-")))
            started = perf_counter()
            running = stack.enter_context(platform(folder, UpOptions(any_ports=True)))
            _say(session.out, f"platform up in {perf_counter() - started:.1f} s: {running.endpoints.features}")
            client = stack.enter_context(Client(running.endpoints.features))
            registry = stack.enter_context(RegistryClient(running.endpoints.control))
            return Demo(session.out, client, registry).run(plant_wrong_value)
    except StopAsked:
        return EXIT_STOPPED


class Demo:
    """The steps of the demonstration against running servers."""

    def __init__(self, out: TextIO, client: Client, registry: RegistryClient) -> None:
        self._out = out
        self._client = client
        self._registry = registry
        self._started = perf_counter()

    def run(self, plant_wrong_value: bool) -> int:
        """All steps; the exit code."""
        definitions = load(Path(flight_definitions.__file__))
        prepared = self._register(definitions)
        year = load_year()
        stops = checkpoints(year)
        tables = write_tables(year, definitions)
        expected = latest(year.flights, as_of_times(stops), lookups(year, definitions))
        self._say(f"pandas computed {len(year.flights):,} x {len(prepared.columns)} values by merge_asof")
        values = typed(expected, prepared)
        replay = Replay(self._client, prepared, year, tables, self._planting(stops) if plant_wrong_value else _nothing)
        differences = self._replay(replay, year, stops, values, expected)
        differences = differences or self._show_batch(replay, year, stops[-1], values, expected)
        if differences:
            return self._report_differences(year, differences)
        self._show_unknown_feature(year)
        return self._conclude(replay.totals)

    def _register(self, definitions: DefinitionSet) -> PreparedFeatures:
        applied = self._registry.apply(definitions)
        await_served(self._client, definitions, applied)
        prepared = self._client.prepare(definitions.feature_services[0].name)
        self._say(
            f"registered {len(applied.changes)} definitions; {prepared.feature_service} has "
            f"{len(prepared.columns)} features by {', '.join(prepared.join_keys)}"
        )
        return prepared

    def _replay(
        self, replay: Replay, year: Year, stops: Sequence[Checkpoint], values: pa.RecordBatch, expected: Expected
    ) -> list[Difference]:
        """Stops at the first checkpoint that differs."""
        months = year.flights["scheduled_time"].dt.tz_convert(ZONE).dt.strftime("%Y-%m")
        month = months[0]
        for differences in replay.run(stops, values, expected.states):
            if differences:
                return differences
            done = replay.totals.flight_count
            if done == len(months) or months[done] != month:
                self._say(f"{month}: {replay.totals.row_count:,} rows written, {done:,} flights read, all equal")
                month = months[min(done, len(months) - 1)]
        return []

    def _planting(self, stops: Sequence[Checkpoint]) -> Callable[[Checkpoint], None]:
        """Writes one wrong value through the server at the first checkpoint, for the test that it is found."""
        wrong = pa.table(
            {
                "carrier": ["UA"],
                "event_time": pa.array([stops[0].time.to_pydatetime()], pa.timestamp("us", tz="UTC")),
                "name": ["planted by --plant-wrong-value"],
            }
        )

        def plant(stop: Checkpoint) -> None:
            if stop == stops[0]:
                self._client.write_features("flights.carrier.facts@v1", wrong)

        return plant

    def _show_batch(
        self, replay: Replay, year: Year, stop: Checkpoint, values: pa.RecordBatch, expected: Expected
    ) -> list[Difference]:
        """One call for a hundred flights: what came, how fast, and where pandas says otherwise, which is nowhere."""
        first, end = stop.first, stop.first + BATCH_FLIGHTS
        batch = replay.read(first, end)
        shown = batch.to_arrow().slice(0, SHOWN_FLIGHTS).to_pydict()
        flights = year.flights.iloc[first : first + SHOWN_FLIGHTS]
        names = [f"{flight.carrier}{flight.flight} {flight.origin}-{flight.dest}" for flight in flights.itertuples()]
        states = {name: [ValueState(state).name for state in batch.states(name)] for name in batch.columns}
        step = max(1, len(batch.columns) // SHOWN_FEATURES)
        rows = [
            [name, *(states[name][row] if value is None else plain(value) for row, value in enumerate(shown[name]))]
            for name in batch.columns[::step]
        ]
        self._say(f"one call for {BATCH_FLIGHTS} flights; every {step}th feature of the first {SHOWN_FLIGHTS}:")
        print_table(("feature", *names), rows, self._out)
        counts = Counter(state for column in states.values() for state in column)
        self._say("states: " + ", ".join(f"{state} {count:,}" for state, count in counts.most_common()))
        self._time_batch(replay, first, end)
        wanted = {name: column.to_numpy(np.uint8) for name, column in expected.states.items()}
        differences = compare(batch, first, values, wanted)
        if not differences:
            self._say(f"pandas computes the same {BATCH_FLIGHTS} x {len(batch.columns)} values and states: both agree")
        return differences

    def _time_batch(self, replay: Replay, first: int, end: int) -> None:
        times_ms = np.empty(BATCH_REPEATS)
        for number in range(BATCH_REPEATS):
            started = perf_counter()
            replay.read(first, end)
            times_ms[number] = (perf_counter() - started) * 1_000
        p50, p95, p99 = np.percentile(times_ms, (50, 95, 99))
        rate = BATCH_REPEATS / (times_ms.sum() / 1_000)
        self._say(
            f"{BATCH_REPEATS:,} such calls, one after another from this Python process: {rate:,.0f} calls/s, "
            f"p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms"
        )

    def _show_unknown_feature(self, year: Year) -> None:
        keys = {"tail_number": [year.flights["tail_number"].iloc[0]]}
        self._say(f"who asks for {UNKNOWN_FEATURE} sees:")
        try:
            self._client.get_online_features(features=[UNKNOWN_FEATURE], entities=keys)
        except CallerError as error:
            print_error(error, Format.TABLE, self._out)
        else:
            raise InternalError(f"{UNKNOWN_FEATURE} was answered", reason="UNKNOWN_FEATURE_ANSWERED")

    def _report_differences(self, year: Year, differences: Sequence[Difference]) -> int:
        rows = []
        for difference in differences:
            flight = year.flights.iloc[difference.flight]
            name = f"{flight.carrier}{flight.flight} {flight.scheduled_time:%Y-%m-%d %H:%M}Z"
            rows.append((name, difference.column, difference.served, difference.expected))
        self._say("served values differ from pandas; the first:")
        print_table(("flight", "feature", "served", "pandas"), rows, self._out)
        self._say("DEMO FAILED")
        return EXIT_DIFFERENT

    def _conclude(self, totals: Totals) -> int:
        states = ", ".join(f"{state.name} {totals.state_counts[state]:,}" for state in ValueState)
        self._say(
            f"wrote {totals.row_count:,} rows in {totals.write_s:.1f} s ({totals.row_count / totals.write_s:,.0f}/s), "
            f"read {totals.value_count:,} values in {totals.read_s:.1f} s "
            f"({totals.value_count / totals.read_s:,.0f}/s)"
        )
        self._say(f"states: {states}")
        self._say(f"compared {totals.flight_count:,} of {FLIGHT_COUNT:,} flights, {totals.value_count:,} values")
        if totals.flight_count != FLIGHT_COUNT:
            self._say("DEMO FAILED: not every flight was compared")
            return EXIT_DIFFERENT
        self._out.write("DEMO OK\n")
        return EXIT_OK

    def _say(self, text: str) -> None:
        _say(self._out, f"[{perf_counter() - self._started:5.1f} s] {text}")


def _nothing(stop: Checkpoint) -> None:
    """What happens after the writes of a checkpoint in an honest run."""


def _say(out: TextIO, text: str) -> None:
    out.write(text + "\n")
    out.flush()
