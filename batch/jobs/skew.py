"""The skew run: every logged answer derived again from the lake, each difference with its cause."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import pyarrow as pa

from batch.jobs.context import Arguments, Context
from batch.jobs.historical import runs_of
from batch.jobs.views import WantedView, wanted_view
from batch.offline.catalogue import Catalogue
from batch.offline.view_table import ViewTable
from batch.skew.attribution import attribute
from batch.skew.evidence import LakeEvidence, ViewHistory
from batch.skew.report import FailOn, FeatureParity, report, tally
from batch.skew.served import Served
from batch.skew.served_log import ServedFilter, ServedLog
from headrace.client import RegistryClient
from headrace.definitions.changes import DefinitionKind
from headrace.definitions.registered import Registered, RegisteredView
from headrace.definitions.values import value_from_document
from headrace.errors import InvalidArgument, NotFound
from headrace.names import parse_feature_ref
from headrace.types import Scalar, parse_type

KIND: Final = "skew"
Versions = dict[str, dict[int, ViewHistory]]


class VersionList(Protocol):
    """Where every version of a view is listed."""

    def get(self, kind: DefinitionKind, name: str) -> Registered: ...

    def list(self, kind: DefinitionKind, name_prefix: str = "") -> Iterable[Registered]: ...


def run_skew(context: Context, arguments: Arguments) -> dict[str, Any]:  # Any: JSON values
    """The report, with the exit code that the findings asked for give."""
    wanted = _filter(arguments)
    fail_on = [_fail_on(text) for text in arguments.get("fail_on", ())]
    with context.catalogue() as catalogue, RegistryClient(context.registry, token=context.token) as registry:
        document, code = derive_served(context, catalogue, registry, wanted, fail_on)
    return {"report": document, "exit_code": code}


def derive_served(
    context: Context,
    catalogue: Catalogue,
    registry: VersionList,
    wanted: ServedFilter,
    fail_on: Sequence[FailOn] = (),
) -> tuple[dict[str, Any], int]:  # Any: JSON values
    """Report over the served log, and its exit code."""
    versions: Versions = {}
    parity: dict[str, FeatureParity] = {}
    skipped: dict[str, int] = {}
    done = 0
    inputs = {"since_us": str(wanted.since_us), "until_us": str(wanted.until_us), "features": ",".join(wanted.features)}
    with runs_of(catalogue).run(KIND, inputs):
        evidence = LakeEvidence(versions)
        for batch in ServedLog(catalogue).batches(wanted):
            _learn(versions, batch, registry, catalogue)
            known = [one for one in batch if one.feature.version in versions[one.feature.view]]
            for one in batch:
                if one.feature.version not in versions[one.feature.view]:
                    skipped[str(one.feature)] = skipped.get(str(one.feature), 0) + 1
            if known:
                evidence.begin(known)
                tally(attribute(known, evidence), parity)
            done += len(batch)
            context.progress("derive", done, done)
    found = report(parity)
    document = found.document() | {"skipped": skipped, "served_rows": done}
    return document, found.exit_code(fail_on)


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


def _fail_on(text: str) -> FailOn:
    try:
        return FailOn(text)
    except ValueError as error:
        raise InvalidArgument(
            f"--fail-on {text!r} is not one of {', '.join(FailOn)}", reason="FAIL_ON", field="--fail-on"
        ) from error


def _learn(versions: Versions, served: Sequence[Served], registry: VersionList, catalogue: Catalogue) -> None:
    """Every version of the views that were served; one that is not `latest` throughout cannot be derived yet."""
    for name in sorted({one.feature.view for one in served} - versions.keys()):
        found = versions[name] = {}
        for record in registry.list(DefinitionKind.FEATURE_VIEW, name):
            if not isinstance(record, RegisteredView) or record.definition.name != name:
                continue
            if record.definition.is_plain:
                view = wanted_view(registry, record)
                found[record.version] = _history(view, record.transform_digest, catalogue)


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
    )
