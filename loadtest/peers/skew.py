"""Measures skew detection on real flights: false alarms on unchanged data, and the rows that find injected faults.

Command: python -m loadtest.peers.skew [--quick] [--seed N]. The last line printed is one JSON object. There is no peer:
what others ship are fixed thresholds, whose false alarms docs/decisions/0021-drift-thresholds.md quotes.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Final

from batch.skew.power import SIZES, Fault, Population, Trials, false_alarms, rows_for_drift, rows_for_parity
from batch.skew.statistics import ROWS_MIN
from loadtest.peers.processes import ROOT
from loadtest.peers.result import Figure, Missing, Report, commit, machine
from loadtest.peers.skew_data import flights, populations, series_faults, value_faults

RESULT: Final = ROOT / "loadtest" / "results" / "skew.json"
SEED: Final = 2013
REPLAYS: Final = 200
ALARM_SHARE_MAX: Final = 0.01
NONE: Final = "none: a bound"
REPLAY_SIZES: Final = ((100, 100), (1_000, 300), (5_000, 2_000))  # rows of reference and live sample
DRIFT_SIZES: Final = tuple(size for size in SIZES if size > ROWS_MIN)
REFERENCE_ROWS: Final = {"value": 50_000, "series": 8_000}

# Stated rows: by parity for every fault, by drift where the distribution itself changes.
PARITY_ROWS: Final = 10
PARITY_ROWS_RARE: Final = 500  # a fault of 1 % of the rows
DRIFT_ROWS: Final = {
    "mean_dep_delay": 1_000,
    "mean_air_time": 5_000,
    "null_1_point": 20_000,
    "unit_1000": 100,
    "mean_window": 5_000,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints progress and the JSON line; 0 where every target is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 trials a row count in place of 100; keeps no file")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)
    trials = Trials(SIZES, 20 if chosen.quick else 100, chosen.seed)
    scale: dict[str, object] = {"trials": trials.count, "replays": REPLAYS, "seed": chosen.seed, "quick": chosen.quick}
    _say(f"skew: {scale}")
    table = flights()
    columns = populations(table)
    found = alarm_figures(columns, chosen.seed)
    for kind, faults in (("value", value_faults(table, chosen.seed)), ("series", series_faults(table))):
        for fault in faults:
            found += fault_figures(fault, trials, REFERENCE_ROWS[kind], len(columns))
    report = Report("skew", scale, tuple(found), commit(ROOT), machine())
    if not chosen.quick:
        RESULT.write_text(report.to_json() + "\n")
    _say(report.to_json())
    return 0 if report.ok else 1


def alarm_figures(columns: dict[str, Population], seed: int) -> list[Figure | Missing]:
    """Share of replays with any false alarm, one figure a pair of sample sizes."""
    out: list[Figure | Missing] = []
    for reference, live in REPLAY_SIZES:
        alarms = false_alarms(columns, (reference, live), REPLAYS, seed)
        note = f"{alarms} of {REPLAYS} replays of {len(columns)} features"
        _say(f"skew: {reference} against {live} rows: {note}")
        name, rounds = f"false_alarm_share_{reference}_{live}", (alarms / REPLAYS,)
        out.append(Figure(name, rounds, "lower", "share of replays", NONE, ALARM_SHARE_MAX, note))
    return out


def fault_figures(fault: Fault, trials: Trials, reference_rows: int, feature_count: int) -> list[Figure | Missing]:
    """Rows that find a fault, by parity and by drift."""
    parity = rows_for_parity(fault, trials).rows
    above = dataclasses.replace(trials, sizes=DRIFT_SIZES)
    drift = rows_for_drift(fault, above, reference_rows, feature_count).rows
    _say(f"skew: {fault.name}: found in {parity} rows by parity, {drift} by drift")
    rare = PARITY_ROWS_RARE if fault.name.startswith("null") else PARITY_ROWS
    return [
        _rows(f"rows_by_parity_{fault.name}", parity, rare),
        _rows(f"rows_by_drift_{fault.name}", drift, DRIFT_ROWS.get(fault.name)),
    ]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _rows(name: str, rows: int | None, target: float | None) -> Figure | Missing:
    if rows is not None:
        return Figure(name, (float(rows),), "lower", "rows", NONE, target)
    note = "not found: the values are distributed as before, so only parity can tell"
    return Missing(name, target, "lower", "rows", NONE, note, required=target is not None)


if __name__ == "__main__":
    sys.exit(main())
