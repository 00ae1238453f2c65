"""Commands on rows: write, read, materialize."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa

from control_plane.cli.output import Format, plain, print_document, print_table
from control_plane.cli.request_values import parse_request_data
from control_plane.cli.session import Session
from control_plane.cli.tables import FileRows, named_rows, read_rows, select
from control_plane.cli.typed_columns import parse_columns, split_values
from headrace.client import Durability, FeatureBatch, ReadOptions, RegistryClient, ValueState, WriteToken
from headrace.definitions import (
    DefinitionKind,
    Entity,
    RegisteredEntity,
    RegisteredSource,
    RegisteredView,
    Source,
    SourceKind,
)
from headrace.definitions.enrichment import enriched
from headrace.definitions.plans import compile_plan
from headrace.definitions.transforms import Latest
from headrace.definitions.views import FeatureView
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.history import source_rows
from headrace.names import VersionRef, check_name
from headrace.types import Scalar

WRITE_TIMEOUT_S: Final = 120.0  # per batch of the file
READ_TIMEOUT_S: Final = 10.0  # a person waits; a model server uses the client's own default
EVENT_TIME: Final = "event_time"
_TIMES: Final = pa.timestamp("us", tz="UTC")


class Progress(Protocol):
    """Told how many rows are done."""

    def __call__(self, row_count: int) -> None: ...


def write(session: Session, view_name: str, file: Path, durability: str) -> None:
    """Writes the rows of a file into a view."""
    with session.registry() as registry:
        view, entity = _view(registry, view_name)
        columns = [] if view.definition.is_plain else _event_fields(registry, view, entity.definition)
    keys = [pa.field(key.name, key.type.arrow) for key in entity.definition.join_keys]
    plain = [pa.field(feature.name, feature.type.arrow) for feature in view.definition.features]
    values = plain if view.definition.is_plain else columns
    rows = read_rows(file, pa.schema([*keys, pa.field(EVENT_TIME, _TIMES), *values]))
    _send(session, str(view.ref), rows, _durability(durability))


def materialize(session: Session, view_name: str, origin: str | None) -> None:
    """Brings the rows of a view's source online: each feature is the newest value of its column."""
    with session.registry() as registry:
        view, entity = _view(registry, view_name)
        source, place = _source(registry, view, origin)
    keys = [key.name for key in entity.definition.join_keys]
    origins = {EVENT_TIME: source.event_time_column, **{key: key for key in keys}}
    origins |= _latest_columns(view.definition, str(view.ref))
    types = {column.name: column.type.arrow for column in source.columns}
    schema = pa.schema([pa.field(name, types[name]) for name in dict.fromkeys(origins.values())])
    with _rows(session, place, schema) as rows:
        renamed = FileRows((select(table, origins) for table in rows.batches), rows.row_count)
        _send(session, str(view.ref), renamed, Durability.LOG)


@contextmanager
def _rows(session: Session, place: Path | Source, schema: pa.Schema) -> Iterator[FileRows]:
    """Rows of a file, or of a source that is a SELECT over files below this folder and the lake of the platform."""
    if isinstance(place, Path):
        yield read_rows(place, schema)
        return
    with source_rows(place, lake=str(session.lake_folder())) as reader:
        yield named_rows(place.name, iter(reader), schema)


def _event_fields(registry: RegistryClient, view: RegisteredView, entity: Entity) -> list[pa.Field]:
    """Columns of the source that the view computes from, and those that it looks up by."""

    def find(ref: VersionRef) -> RegisteredView:
        return _view(registry, str(ref))[0]

    def find_entity(name: str) -> Entity:
        found = registry.get(DefinitionKind.ENTITY, name)
        assert isinstance(found, RegisteredEntity), "the registry answers the kind that was asked for"
        return found.definition

    record = registry.get(DefinitionKind.SOURCE, view.definition.source)
    assert isinstance(record, RegisteredSource), "as above"
    source = enriched(view.definition, entity, record.definition, find, find_entity)
    wanted = compile_plan(view.definition, entity, source).given
    return [pa.field(column.name, column.type.arrow) for column in source.columns if column.name in wanted]


def _latest_columns(view: FeatureView, ref: str) -> dict[str, str]:
    if not view.is_plain:
        raise FailedPrecondition(
            f"{ref!r} has a filter, lookups, windows or derived features, which materialize does not compute yet",
            reason="TRANSFORM_NOT_SERVED",
            field="VIEW",
            metadata={"feature_view": ref},
        )
    return {one.name: one.transform.column for one in view.features if isinstance(one.transform, Latest)}


def read(
    session: Session,
    service: str | None,
    entities: Sequence[str],
    features: Sequence[str],
    *,
    requests: Sequence[str],
    expired: bool,
) -> None:
    """Reads features of the given entities in one call."""
    if (service is None) == (not features):
        raise InvalidArgument(
            "name a feature service, or features by --feature, and not both", reason="SELECTION", field="SERVICE"
        )
    with session.features() as client:
        prepared = client.prepare(service, features=features, timeout_s=READ_TIMEOUT_S)
        keys = parse_entities(entities, prepared.join_keys)
        request_data = parse_request_data(requests, prepared.request_fields)
        options = ReadOptions(include_expired=expired)
        batch = client.get_online_features(
            prepared, entities=keys, request_data=request_data, options=options, timeout_s=READ_TIMEOUT_S
        )
    if session.form is Format.TABLE:
        _print_batch(session, keys, batch)
    else:
        print_document(_batch_document(prepared.feature_service, keys, batch), session.form, session.out)


def parse_entities(texts: Sequence[str], join_keys: Mapping[str, Scalar]) -> dict[str, list[Any]]:
    """Key columns of "user_id=1,2,3" or "user_id=[1,null]", in the types that the selection asks for."""

    def unknown(text: str) -> InvalidArgument:
        return InvalidArgument(
            f"--entity {text!r} is not one of the keys to send; write each once, as KEY=VALUE,VALUE: "
            f"{', '.join(join_keys)}",
            reason="ENTITY_KEY",
            field="--entity",
            metadata={"entity": text, "join_keys": ",".join(join_keys)},
        )

    def missing(names: list[str]) -> InvalidArgument:
        return InvalidArgument(
            f"--entity {names[0]}=... is missing; this selection needs {', '.join(join_keys)}",
            reason="ENTITY_KEY_MISSING",
            field="--entity",
            metadata={"missing": ",".join(names)},
        )

    def convert(name: str, text: str) -> list[Any]:
        try:
            values = split_values(text)
        except ValueError as error:
            raise _bad_key(name, text, "a JSON list") from error
        return [_key(name, value, join_keys[name]) for value in values]

    return parse_columns(texts, join_keys, convert, unknown=unknown, missing=missing)


def _key(name: str, value: object, kind: Scalar) -> int | str | bytes | None:
    if value is None:
        return None
    if kind is Scalar.I64:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise _bad_key(name, value, "a whole number")
        try:
            return int(value)
        except ValueError as error:
            raise _bad_key(name, value, "a whole number") from error
    if not isinstance(value, str):
        raise _bad_key(name, value, "text")
    if kind is Scalar.STRING:
        return value
    try:
        return bytes.fromhex(value)
    except ValueError as error:
        raise _bad_key(name, value, "bytes as hexadecimal digits") from error


def _bad_key(name: str, value: object, wanted: str) -> InvalidArgument:
    return InvalidArgument(
        f"--entity {name} holds {value!r}, which is not {wanted}",
        reason="ENTITY_KEY_TYPE",
        field="--entity",
        metadata={"join_key": name, "value": str(value)},
    )


def _view(registry: RegistryClient, name: str) -> tuple[RegisteredView, RegisteredEntity]:
    view = registry.get(DefinitionKind.FEATURE_VIEW, name)
    assert isinstance(view, RegisteredView), "the registry answers the kind that was asked for"
    entity = registry.get(DefinitionKind.ENTITY, view.definition.entity)
    assert isinstance(entity, RegisteredEntity), "as above"
    return view, entity


def _source(registry: RegistryClient, view: RegisteredView, origin: str | None) -> tuple[Source, Path | Source]:
    """The view's source definition, and the file or SELECT to read: named, of a named source, or of its own source."""
    own = registry.get(DefinitionKind.SOURCE, view.definition.source)
    assert isinstance(own, RegisteredSource), "the registry answers the kind that was asked for"
    if origin is not None and not _is_name(origin):
        return own.definition, Path(origin)
    named = own if origin is None else registry.get(DefinitionKind.SOURCE, origin)
    assert isinstance(named, RegisteredSource), "as above"
    if named.definition.kind is SourceKind.SQL:
        return own.definition, named.definition
    if named.definition.kind is not SourceKind.FILE:
        raise FailedPrecondition(
            f"source {named.definition.name} is of kind {named.definition.kind.name.lower()}, which has no rows to "
            "read; name a file by --from",
            reason="SOURCE_KIND",
            field="--from",
            metadata={"source": named.definition.name},
        )
    return own.definition, Path(named.definition.uri.removeprefix("file://"))


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except InvalidArgument:
        return False
    return not Path(text).exists()


def _durability(text: str) -> Durability:
    try:
        return Durability[text.upper()]
    except KeyError as error:
        names = ", ".join(level.name.lower() for level in Durability)
        raise InvalidArgument(
            f"--durability {text!r} is not one of {names}", reason="DURABILITY", field="--durability"
        ) from error


def _send(session: Session, view: str, rows: FileRows, durability: Durability) -> None:
    tokens: dict[int, WriteToken] = {}
    row_count = stale_count = 0
    with session.features() as client, progress(session, f"writing {view}", rows.row_count) as advance:
        for table in rows.batches:
            result = client.write_features(view, table, durability=durability, timeout_s=WRITE_TIMEOUT_S)
            tokens |= {token.shard: token for token in result.tokens}
            row_count += result.row_count
            stale_count += result.stale_count
            advance(row_count)
    if session.form is Format.TABLE:
        late = f", {stale_count} of them older than what is served" if stale_count else ""
        session.out.write(f"wrote {row_count} rows to {view}{late}\n")
        return
    positions = [{"shard": t.shard, "epoch": t.epoch, "offset": t.offset} for t in tokens.values()]
    fields = {"feature_view": view, "row_count": row_count, "stale_count": stale_count, "tokens": positions}
    print_document(fields, session.form, session.out)


@contextmanager
def progress(session: Session, title: str, total: int | None) -> Iterator[Progress]:
    """A bar on stderr where a person sees it, and nothing in a pipe."""
    if not session.err.isatty():
        yield lambda row_count: None
        return
    from rich import progress as bars  # lazy: as above
    from rich.console import Console  # lazy: only a terminal shows a bar

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=Console(file=session.err), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda row_count: bar.update(task, completed=row_count)


def _print_batch(session: Session, keys: Mapping[str, Sequence[Any]], batch: FeatureBatch) -> None:
    """A line per feature and a column per entity, as services are wide and people ask for few entities."""
    rows = batch.to_arrow()
    entities = [",".join(str(plain(key)) for key in row) for row in zip(*keys.values(), strict=True)]
    table = []
    for name in batch.columns:
        values, states, filled = rows.column(name).to_pylist(), batch.states(name), batch.has_value(name)
        marks = [_mark(state, has) for state, has in zip(states, filled, strict=True)]
        table.append([name, *(f"{'' if v is None else plain(v)}{m}" for v, m in zip(values, marks, strict=True))])
    print_table(["feature", *entities], table, session.out)


def _mark(state: int, has_value: bool) -> str:
    if state == ValueState.PRESENT:
        return ""
    return f" ({ValueState(state).name.lower()})" if has_value else ValueState(state).name


def _batch_document(service: str, keys: Mapping[str, Sequence[Any]], batch: FeatureBatch) -> dict[str, Any]:
    rows = batch.to_arrow().to_pylist()
    states = {name: [ValueState(state).name for state in batch.states(name)] for name in batch.columns}
    return {
        "feature_service": service,
        "registry_revision": batch.registry_revision,
        "read_time_us": batch.read_time_us,
        "rows": [
            {
                "entity": {name: values[number] for name, values in keys.items()},
                "features": row,
                "statuses": {name: column[number] for name, column in states.items()},
            }
            for number, row in enumerate(rows)
        ],
    }
