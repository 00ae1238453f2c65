"""The skew run: every logged answer derived again from the lake, each difference with its cause, and drift."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import pyarrow as pa

from batch.jobs.context import Arguments, Context
from batch.jobs.historical import runs_of
from batch.jobs.views import WantedView, wanted_view
from batch.offline.catalogue import Catalogue
from batch.offline.view_table import ViewTable
from batch.skew.attribution import attribute
from batch.skew.drift import FeatureDrift
from batch.skew.evidence import LakeEvidence, ViewHistory
from batch.skew.report import FailOn, FeatureParity, report, tally
from batch.skew.samples import Samples, judged, served_references, training_references
from batch.skew.served import Served
from batch.skew.served_log import ServedFilter, ServedLog
from batch.training.sets import TrainingSets
from headrace.client import RegistryClient
from headrace.definitions.changes import DefinitionKind
from headrace.definitions.registered import Registered, RegisteredView
from headrace.definitions.values import value_from_document
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace.names import parse_feature_ref
from headrace.types import Scalar, ValueType, parse_type

KIND: Final = "skew"
Versions = dict[str, dict[int, ViewHistory]]


@dataclass(frozen=True, slots=True)
class Against:
    """What served values are compared with: a training set by name, or else answers served before."""

    training_set: str = ""
    served: ServedFilter = field(default_factory=ServedFilter)

    @property
    def text(self) -> str:
        """For people."""
        if self.training_set:
            return f"training set {self.training_set}"
        since, until = (self.served.since_us, self.served.until_us)
        return f"answers served from {_time_text(since) or 'the beginning'} to {_time_text(until) or 'now'}"


class VersionList(Protocol):
    """Where every version of a view is listed."""

    def get(self, kind: DefinitionKind, name: str) -> Registered: ...

    def list(self, kind: DefinitionKind, name_prefix: str = "") -> Iterable[Registered]: ...


def run_skew(context: Context, arguments: Arguments) -> dict[str, Any]:  # Any: JSON values
    """The report, with the exit code that the findings asked for give."""
    wanted = _filter(arguments)
    fail_on = [_fail_on(text) for text in arguments.get("fail_on", ())]
    against = _against(arguments, wanted, fail_on)
    with context.catalogue() as catalogue, RegistryClient(context.registry, token=context.token) as registry:
        document, code = derive_served(context, catalogue, registry, wanted, fail_on=fail_on, against=against)
    return {"report": document, "exit_code": code}


def derive_served(
    context: Context,
    catalogue: Catalogue,
    registry: VersionList,
    wanted: ServedFilter,
    *,
    fail_on: Sequence[FailOn] = (),
    against: Against | None = None,
) -> tuple[dict[str, Any], int]:  # Any: JSON values
    """Report over the served log, and its exit code. Drift is judged where something is given to compare with."""
    versions: Versions = {}
    known_views = _KnownViews(registry)
    live = Samples(known_views.types)
    parity: dict[str, FeatureParity] = {}
    skipped: dict[str, int] = {}
    done = 0
    inputs = {"since_us": str(wanted.since_us), "until_us": str(wanted.until_us), "features": ",".join(wanted.features)}
    with runs_of(catalogue).run(KIND, inputs):
        evidence = LakeEvidence(versions)
        for batch in ServedLog(catalogue).batches(wanted):
            _learn(versions, batch, registry, catalogue)
            if against is not None:
                known_views.learn(batch)
                live.add(batch)
            known = [one for one in batch if one.feature.version in versions[one.feature.view]]
            for one in batch:
                if one.feature.version not in versions[one.feature.view]:
                    skipped[str(one.feature)] = skipped.get(str(one.feature), 0) + 1
            if known:
                evidence.begin(known)
                tally(attribute(known, evidence), parity)
            done += len(batch)
            context.progress("derive", done, done)
        drifts = [] if against is None else _drifts(catalogue, against, live, known_views)
    found = report(parity, drifts)
    document = found.document() | {"skipped": skipped, "served_rows": done}
    if against is not None:
        compared = {one.feature for one in drifts}
        document |= {
            "reference": against.text,
            "without_reference": sorted(live.by_feature.keys() - compared),
            "owners": {name: known_views.owners[name] for name in sorted(compared)},
        }
    return document, found.exit_code(fail_on)


def _drifts(catalogue: Catalogue, against: Against, live: Samples, known_views: "_KnownViews") -> list[FeatureDrift]:
    if against.training_set:
        references = training_references(TrainingSets(catalogue).get(against.training_set), catalogue.roots)
    else:
        before = Samples(known_views.types)
        for batch in ServedLog(catalogue).batches(against.served):
            known_views.learn(batch)
            before.add(batch)
        references = served_references(before)
    found = judged(references, live)
    if live.by_feature and not found:
        raise InvalidArgument(
            f"{against.text} holds none of the features that were served; compare with one that does",
            reason="NO_REFERENCE",
            field="--reference",
        )
    return found


class _KnownViews:
    """Types and owners of the features of views that were served, computed ones too."""

    def __init__(self, registry: VersionList) -> None:
        self.types: dict[str, ValueType] = {}
        self.owners: dict[str, str] = {}
        self._registry = registry
        self._known: set[str] = set()

    def learn(self, served: Sequence[Served]) -> None:
        """Looks up the views that are new."""
        for name in sorted({one.feature.view for one in served} - self._known):
            self._known.add(name)
            for record in self._registry.list(DefinitionKind.FEATURE_VIEW, name):
                if isinstance(record, RegisteredView) and record.definition.name == name:
                    for feature in record.definition.features:
                        self.types[f"{record.ref}:{feature.name}"] = feature.type
                        self.owners[f"{record.ref}:{feature.name}"] = record.definition.owner


def _against(arguments: Arguments, wanted: ServedFilter, fail_on: Sequence[FailOn]) -> Against | None:
    name = arguments.get("reference") or ""
    since, until = arguments.get("reference_since_us"), arguments.get("reference_until_us")
    has_times = since is not None or until is not None
    if name and has_times:
        raise InvalidArgument(
            "--reference names a training set, and --reference-since and --reference-until answers served before; "
            "give one of both",
            reason="TWO_REFERENCES",
            field="--reference",
        )
    if not name and not has_times:
        if FailOn.DRIFT in fail_on:
            raise InvalidArgument(
                "--fail-on drift needs something to compare with: name a training set by --reference, or earlier "
                "answers by --reference-since and --reference-until",
                reason="NO_REFERENCE",
                field="--reference",
            )
        return None
    return Against(name, ServedFilter(since, until, wanted.features))


def _filter(arguments: Arguments) -> ServedFilter:
    features = tuple(arguments.get("features", ()))
    for text in features:
        if not parse_feature_ref(text, "feature").version:
            raise InvalidArgument(
                f"--feature {text!r} names no version; write it like view@v1:feature",
                reason="VERSION_REQUIRED",
                field="--feature",
            )
    return ServedFilter(arguments.get("since_us"), arguments.get("until_us"), features)


def _time_text(time_us: int | None) -> str:
    return "" if time_us is None else datetime.fromtimestamp(time_us / 1_000_000, UTC).isoformat()


def _fail_on(text: str) -> FailOn:
    try:
        return FailOn(text)
    except ValueError as error:
        raise InvalidArgument(
            f"--fail-on {text!r} is not one of {', '.join(FailOn)}", reason="FAIL_ON", field="--fail-on"
        ) from error


def _learn(versions: Versions, served: Sequence[Served], registry: VersionList, catalogue: Catalogue) -> None:
    """Every version of the views that were served, but for those that stay online or that this kernel cannot make."""
    for name in sorted({one.feature.view for one in served} - versions.keys()):
        found = versions[name] = {}
        for record in registry.list(DefinitionKind.FEATURE_VIEW, name):
            if not isinstance(record, RegisteredView) or record.definition.name != name:
                continue
            try:
                view = wanted_view(registry, record)
                found[record.version] = _history(view, record.transform_digest, catalogue)
            except FailedPrecondition:
                continue


def _history(view: WantedView, digest: bytes, catalogue: Catalogue) -> ViewHistory:
    columns = view.table
    types: Mapping[str, Any] = {column.feature: parse_type(column.type) for column in view.columns}

    def read(names: Sequence[str]) -> pa.RecordBatchReader:
        try:
            catalogue.load(columns.identifier)
        except NotFound:
            return pa.RecordBatchReader.from_batches(pa.schema([columns.arrow.field(name) for name in names]), [])
        return ViewTable(columns, lambda: catalogue.load(columns.identifier)).read(names=names)

    return ViewHistory(
        ref=view.ref,
        keys=tuple((name, Scalar[kind.upper()]) for name, _, kind in view.keys),
        features=types,
        defaults={
            column.feature: value_from_document(column.default, types[column.feature])
            for column in view.columns
            if column.default is not None
        },
        ttl_us=view.ttl_us,
        fallback=view.fallback,
        digest=digest,
        read=read,
        make=None if view.computation() is None else view.history,
        stored=tuple(name for name, _ in columns.features),
    )
