"""Mergeable summaries of samples: counts over bins fixed by the reference, kept as canonical JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch.skew.columns import Column, Kind, Numbers, Observed, Part, chunks_of, observe, parts_of
from core_ext.hashing import crc32c
from headrace.definitions.transform import canonical_json
from headrace.errors import DataLoss, InvalidArgument
from headrace.types import ValueType, parse_type

FORMAT: Final = "headrace.skew.summary"
FORMAT_VERSION: Final = 1
PLAN_ROWS_MAX: Final = 65_536  # rows that decide the bins: quantiles within 0.2 %, half a megabyte a feature
FINE_BINS: Final = 256  # quantile bins: the largest distance of two distributions is seen within 0.4 %
NAMES_MAX: Final = 64  # categories with a count of their own; the rest are counted together
SUMMARY_BYTES_MAX: Final = 1 << 20  # of one stored summary; one of full size takes some 20 KB

_BELOW, _SPECIALS = 1, 3  # counts before the first bin: -inf; all specials: -inf, +inf, NaN


@dataclass(frozen=True, slots=True)
class Bins:
    """Where the values of one part are counted.

    Ordered: bins (edge, next edge] over the whole line, with -inf before them and +inf and NaN after them.
    Named: one count a name, then one for every other name.
    """

    part: Part
    edges: tuple[int, ...] | tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many counts they have."""
        return len(self.edges) + 1 + _SPECIALS if self.part.kind is Kind.ORDERED else len(self.names) + 1

    def counts_of(self, seen: Observed) -> npt.NDArray[np.int64]:
        """Counts of observations."""
        if seen.numbers is not None:
            return self._number_counts(seen.numbers)
        place = {name: index for index, name in enumerate(self.names)}
        at = np.array([place.get(label, len(self.names)) for label in seen.labels], dtype=np.int64)
        weights = seen.label_counts if seen.label_counts is not None else np.zeros(0, np.int64)
        return np.bincount(at, weights=weights, minlength=self.count).astype(np.int64)

    def _number_counts(self, numbers: Numbers) -> npt.NDArray[np.int64]:
        edges = np.asarray(self.edges, dtype=numbers.dtype)
        at = np.searchsorted(edges, numbers, side="left") + _BELOW
        if numbers.dtype.kind == "f":
            at[np.isneginf(numbers)] = 0
            at[np.isposinf(numbers)] = self.count - 2
            at[np.isnan(numbers)] = self.count - 1
        return np.bincount(at, minlength=self.count).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Summary:
    """One feature's sample: rows, nulls, and per part the counts over its bins. Size does not grow with rows."""

    value_type: ValueType
    row_count: int
    null_count: int
    bins: tuple[Bins, ...]
    counts: tuple[tuple[int, ...], ...]

    def merged(self, other: "Summary") -> "Summary":
        """Summary of both samples together; they must have the same bins."""
        if (self.value_type, self.bins) != (other.value_type, other.bins):
            raise InvalidArgument(
                "two summaries have other bins; summarise both samples with the bins of one reference",
                reason="OTHER_BINS",
                field="summary",
            )
        counts = tuple(tuple(map(sum, zip(*pair, strict=True))) for pair in zip(self.counts, other.counts, strict=True))
        rows, nulls = self.row_count + other.row_count, self.null_count + other.null_count
        return Summary(self.value_type, rows, nulls, self.bins, counts)


def plan_bins(columns: Iterable[Column], value_type: ValueType, field: str = "reference") -> tuple[Bins, ...]:
    """Bins for a reference, from at most PLAN_ROWS_MAX of its rows, drawn evenly by row number."""
    ranks = np.zeros(0, dtype=np.uint64)
    row_count = 0
    held: Any = None  # Any: an Arrow array, whose library has no types
    for column in columns:
        for chunk in chunks_of(column, value_type, field):
            fresh = _ranks(row_count, len(chunk))
            row_count += len(chunk)
            both = np.concatenate([ranks, fresh])
            # The rows of smallest rank stay, whatever the chunks: equal rows in equal order give equal bins.
            order = np.sort(np.argsort(both, kind="stable")[:PLAN_ROWS_MAX])
            held = (chunk if held is None else pa.concat_arrays([held, chunk])).take(pa.array(order))
            ranks = both[order]
    if held is None or row_count == 0:
        raise InvalidArgument(f"{field} has no rows; give one with rows", reason="NO_ROWS", field=field)
    return tuple(_bins(seen) for seen in observe(held, value_type))


def summarise(
    columns: Iterable[Column], bins: tuple[Bins, ...], value_type: ValueType, field: str = "sample"
) -> Summary:
    """Counts of a sample over the bins of its reference; a sample without rows is a summary of zeros."""
    if tuple(one.part for one in bins) != parts_of(value_type):
        raise InvalidArgument(
            f"{field} of type {value_type} has other parts than the bins", reason="OTHER_BINS", field=field
        )
    totals = [np.zeros(one.count, dtype=np.int64) for one in bins]
    row_count = null_count = 0
    for column in columns:
        for chunk in chunks_of(column, value_type, field):
            seen = observe(chunk, value_type, row_count)
            totals = [total + one.counts_of(part) for total, one, part in zip(totals, bins, seen, strict=True)]
            row_count += len(chunk)
            null_count += chunk.null_count
    return Summary(value_type, row_count, null_count, bins, tuple(tuple(total.tolist()) for total in totals))


def summarise_reference(columns: Sequence[Column], value_type: ValueType, field: str = "reference") -> Summary:
    """Bins and counts of a reference that can be read twice."""
    return summarise(columns, plan_bins(columns, value_type, field), value_type, field)


def to_bytes(summary: Summary) -> bytes:
    """Canonical JSON with format, version and checksum; equal summaries give equal bytes."""
    document = _document(summary)
    return canonical_json(document | {"crc32c": crc32c(canonical_json(document).encode())}).encode()


def from_bytes(data: bytes, field: str = "reference") -> Summary:
    """The summary of `to_bytes`; damaged or foreign bytes are refused."""
    if len(data) > SUMMARY_BYTES_MAX:
        raise InvalidArgument(
            f"{field} has {len(data)} bytes; a summary has at most {SUMMARY_BYTES_MAX}", reason="TOO_LONG", field=field
        )
    try:
        document: dict[str, Any] = json.loads(data)  # Any: JSON values
        checksum = document.pop("crc32c")
        kind = (document["format"], document["version"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataLoss(f"{field} is no summary ({error}); make it anew", reason="BAD_SUMMARY", field=field) from error
    if kind != (FORMAT, FORMAT_VERSION):
        raise InvalidArgument(
            f"{field} is {kind[0]!r} version {kind[1]!r}; this release reads {FORMAT} version {FORMAT_VERSION}",
            reason="OTHER_VERSION",
            field=field,
        )
    if crc32c(canonical_json(document).encode()) != checksum:
        raise DataLoss(f"{field} fails its checksum; make it anew", reason="BAD_SUMMARY", field=field)
    return _from_document(document)


def _ranks(first_row: int, count: int) -> npt.NDArray[np.uint64]:
    """A fixed pseudo-random rank of every row number (the finaliser of SplitMix64)."""
    word = np.arange(first_row + 1, first_row + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: npt.NDArray[np.uint64] = word ^ (word >> np.uint64(31))
    return out


def _bins(seen: Observed) -> Bins:
    if seen.numbers is None:
        counts = seen.label_counts if seen.label_counts is not None else np.zeros(0, np.int64)
        ranked = sorted(zip((-counts).tolist(), seen.labels, strict=True))
        return Bins(seen.part, names=tuple(label for _, label in ranked[:NAMES_MAX]))
    finite = seen.numbers[np.isfinite(seen.numbers)] if seen.numbers.dtype.kind == "f" else seen.numbers
    return Bins(seen.part, edges=tuple(_edges(finite).tolist()))


def _edges(numbers: Numbers) -> Numbers:
    """Quantiles, the ends, and both sides of every value that is a bin of its own."""
    if len(numbers) == 0:
        return numbers
    values, counts = np.unique(numbers, return_counts=True)
    whole: Numbers = values
    edges: Numbers = values
    if len(values) > FINE_BINS // 2:
        edges = np.quantile(numbers, np.arange(1, FINE_BINS) / FINE_BINS, method="inverted_cdf")
        whole = np.concatenate([values[counts * (FINE_BINS // 2) >= len(numbers)], values[:1]])
        edges = np.concatenate([edges, values[-1:]])
    return np.unique(np.concatenate([edges.astype(numbers.dtype), whole, _before(whole)]))


def _before(values: Numbers) -> Numbers:
    if values.dtype.kind == "f":
        before: Numbers = np.nextafter(values, -np.inf)
        return before[np.isfinite(before)]
    return values[values > np.iinfo(np.int64).min] - 1


def _document(summary: Summary) -> dict[str, Any]:  # Any: JSON values
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "type": str(summary.value_type),
        "rows": summary.row_count,
        "nulls": summary.null_count,
        "parts": [
            {"name": one.part.name, "edges": list(one.edges), "names": list(one.names), "counts": list(counts)}
            for one, counts in zip(summary.bins, summary.counts, strict=True)
        ],
    }


def _from_document(document: dict[str, Any]) -> Summary:  # Any: JSON values
    value_type = parse_type(document["type"])
    bins = tuple(
        Bins(part, edges=tuple(stored["edges"]), names=tuple(stored["names"]))
        for part, stored in zip(parts_of(value_type), document["parts"], strict=True)
    )
    counts = tuple(tuple(stored["counts"]) for stored in document["parts"])
    return Summary(value_type, document["rows"], document["nulls"], bins, counts)
