"""Samples of served values, feature by feature, and the references that they are compared with."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch.historical.tables import located
from batch.offline.roots import Roots
from batch.skew.canonical import column_of
from batch.skew.drift import FeatureDrift, Limits, judge
from batch.skew.served import Served
from batch.skew.statistics import compare, design_effect_of
from batch.skew.summary import Summary, plan_bins, summarise
from batch.training.manifest import FeatureOrigin, Manifest
from core_ext.rules import UNAVAILABLE
from headrace.errors import DataLoss
from headrace.types import ValueType

ROWS_MAX: Final = 65_536  # values of one feature that are held: the largest shift that hides in them is 0.4 %
BATCH_ROWS: Final = 65_536


@dataclass(slots=True)
class Sample:
    """Values of one feature, evenly thinned over all that came: every `stride`-th one is held."""

    value_type: ValueType
    stride: int = 1
    row_count: int = 0
    arrays: list[pa.Array] = field(default_factory=list)
    entities: Counter[bytes] = field(default_factory=Counter)

    def add(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Takes values of entities in, None where a slot was empty."""
        first = -self.row_count % self.stride
        self.row_count += len(values)
        kept = values[first :: self.stride]
        if kept:
            self.arrays.append(column_of(kept, self.value_type))
            self.entities.update(keys[first :: self.stride])
        if sum(map(len, self.arrays)) > ROWS_MAX:
            self._thin()

    def _thin(self) -> None:
        held = pa.concat_arrays(self.arrays)
        self.arrays = [held.take(pa.array(range(0, len(held), 2)))]
        self.stride *= 2

    @property
    def design_effect(self) -> float:
        """How many of its rows are worth one, as an entity that is read again and again repeats itself."""
        return max(1.0, design_effect_of(list(self.entities.values())))


class Samples:
    """Samples of many features; values that could not be read are no values."""

    def __init__(self, types: Mapping[str, ValueType]) -> None:
        self.types = types
        self.by_feature: dict[str, Sample] = {}

    def add(self, served: Iterable[Served]) -> None:
        """Takes answers in; those of features without a known type are left out."""
        columns: dict[str, tuple[list[bytes], list[bytes | None]]] = {}
        for one in served:
            answer = one.answer
            if answer.state != UNAVAILABLE:
                keys, values = columns.setdefault(str(one.feature), ([], []))
                keys.append(one.entity_key)
                values.append(answer.value if answer.has_value else None)
        for name, (keys, values) in columns.items():
            if name not in self.by_feature:
                if name not in self.types:
                    continue
                self.by_feature[name] = Sample(self.types[name])
            self.by_feature[name].add(keys, values)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a feature was like: its column, read as often as needed, and the design effect of its rows."""

    value_type: ValueType
    columns: Iterable[pa.Array]
    design_effect: float = 1.0


def served_references(samples: Samples) -> dict[str, Reference]:
    """References that are answers served before."""
    return {
        name: Reference(sample.value_type, sample.arrays, sample.design_effect)
        for name, sample in samples.by_feature.items()
    }


def training_references(manifest: Manifest, roots: Roots) -> dict[str, Reference]:
    """References that are the columns of a training set."""
    origins: dict[str, list[FeatureOrigin]] = {}
    for origin in manifest.features:
        origins.setdefault(f"{origin.feature_view}:{origin.feature}", []).append(origin)
    return {
        name: Reference(found[0].value_type, _Columns(manifest.result, tuple(found), roots))
        for name, found in origins.items()
    }


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of a result that are one feature, read from their beginning by every loop over them.

    A service may join a feature twice, by other keys; what was served does not say by which.
    """

    uri: str
    origins: tuple[FeatureOrigin, ...]
    roots: Roots

    def __iter__(self) -> Iterator[pa.Array]:
        filesystem, path = located(self.roots.resolve(self.uri, "result"))
        kind = self.origins[0].value_type.arrow
        names = [origin.output for origin in self.origins]
        try:
            with filesystem.open_input_file(path) as file:
                for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=names):
                    for name in names:
                        yield batch.column(name).cast(kind)
        except (OSError, pa.ArrowException) as error:
            raise DataLoss(
                f"the result {self.uri} of the reference cannot be read: {error}; verify or rebuild the training set",
                reason="RESULT_UNREADABLE",
            ) from error


def judged(references: Mapping[str, Reference], live: Samples, limits: Limits | None = None) -> list[FeatureDrift]:
    """Drift of every feature that has both a reference and a sample, corrected for their number."""
    tests = {}
    for name, sample in sorted(live.by_feature.items()):
        reference = references.get(name)
        if reference is None or reference.value_type != sample.value_type:
            continue
        before, now = _summaries(reference, sample, name)
        tests[name] = compare(before, now, max(reference.design_effect, sample.design_effect))
    return list(judge(tests, limits))


def _summaries(reference: Reference, sample: Sample, name: str) -> tuple[Summary, Summary]:
    bins = plan_bins(reference.columns, reference.value_type, name)
    before = summarise(reference.columns, bins, reference.value_type, name)
    return before, summarise(sample.arrays, bins, sample.value_type, name)
