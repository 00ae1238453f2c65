"""Command on one value: headrace explain."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from control_plane.cli.amounts import parse_time_us
from control_plane.cli.data_commands import parse_entities
from control_plane.cli.explained_lines import lines_of
from control_plane.cli.explained_times import document_of, history_sentences
from control_plane.cli.output import Format, print_document
from control_plane.cli.request_values import parse_request_data
from control_plane.cli.session import Session
from control_plane.cli.worker import run_job
from headrace.client import Explanation
from headrace.client.inspection import FeatureFacts
from headrace.errors import HeadraceError, InvalidArgument
from headrace.types import Scalar

TIMEOUT_S: Final = 10.0  # a person waits
STALE: Final = 0x20  # of a status byte; see ValueState in the contract
_SETTLED: Final = frozenset({"PRESENT", "NULL", "NOT_COMPUTED"})

Document = dict[str, Any]  # Any: JSON values


def explain(session: Session, feature: str, entity: Sequence[str], requests: Sequence[str], at: str | None) -> None:
    """Explains the value that is served now, and with `at` the one that history has for then."""
    at_us = parse_time_us(at, "--at") if at is not None else None
    with session.features() as client:
        prepared = client.prepare(features=[feature], timeout_s=TIMEOUT_S)
    keys = _one_entity(entity, prepared.join_keys)
    data = parse_request_data(requests, prepared.request_fields) if requests else None
    with session.inspection() as client:
        found = client.explain(
            feature,
            keys,
            key_types=prepared.join_keys,
            request_data=data,
            request_fields=prepared.request_fields,
            timeout_s=TIMEOUT_S,
        )
    lake = _of_lake(session, found.feature, keys, data, at_us)
    sentences = history_sentences(found, lake["historical"], at_us) if at_us is not None else []
    if session.form is not Format.TABLE:
        print_document(_document(found, keys, lake, sentences, at_us), session.form, session.out)
        return
    for line in lines_of(found, {name: values[0] for name, values in keys.items()}, lake, sentences, at_us):
        session.out.write(line + "\n")


def _one_entity(texts: Sequence[str], join_keys: Mapping[str, Scalar]) -> dict[str, list[Any]]:
    """Key columns of one value each; the only key of a view need not be named."""
    named = [_named(text, join_keys) for text in texts]
    keys = parse_entities(named, join_keys)
    for name, values in keys.items():
        if len(values) != 1:
            raise InvalidArgument(
                f"--entity {name} holds {len(values)} values; explain one entity at a time",
                reason="ONE_ENTITY",
                field="--entity",
                metadata={"join_key": name},
            )
    return keys


def _named(text: str, join_keys: Mapping[str, Scalar]) -> str:
    if len(join_keys) != 1 or any(text.startswith(f"{name}=") for name in join_keys):
        return text
    return f"{next(iter(join_keys))}={json.dumps([text])}"


def _of_lake(
    session: Session, feature: FeatureFacts, keys: Mapping[str, list[Any]], data: Any, at_us: int | None
) -> Document:  # Any: columns of request data
    """What the offline store knows: asked where a time is given, or where the value is not as fresh as it should be."""
    nothing: Document = {"runs": [], "historical": None, "problem": ""}
    is_late = feature.state not in _SETTLED or bool((feature.status or 0) & STALE)
    if at_us is None and not is_late:
        return nothing
    arguments: Document = {
        "feature": feature.feature,
        "keys": {name: _key_document(values[0]) for name, values in keys.items()},
        "request_data": {name: document_of(values[0]) for name, values in (data or {}).items()},
    }
    if at_us is not None and feature.state != "NOT_COMPUTED":
        arguments["time_us"] = at_us
    try:
        return nothing | run_job(session, "explain", arguments, needs_registry=True)
    except HeadraceError as error:
        if at_us is not None and error.reason != "NO_LAKE":
            raise
        return nothing | {"problem": error.message}


def _key_document(key: Any) -> Any:  # Any: of the type of the key
    return key.hex() if isinstance(key, bytes) else key


def _document(
    found: Explanation, keys: Mapping[str, list[Any]], lake: Document, sentences: Sequence[str], at_us: int | None
) -> Document:
    document: Document = {
        "entity": {name: values[0] for name, values in keys.items()},
        "read_time_us": found.read_time_us,
        "registry_revision": found.registry_revision,
        **_feature_document(found.feature),
        "runs": lake["runs"],
    }
    if lake["problem"]:
        document["offline_problem"] = lake["problem"]
    if at_us is not None:
        document["at"] = {"time_us": at_us, "differences": list(sentences), **(lake["historical"] or {})}
    return document


def _feature_document(feature: FeatureFacts) -> Document:
    fields: Document = asdict(feature)
    fields["value"] = document_of(feature.value)
    fields["request_fields"] = {name: str(kind) for name, kind in feature.request_fields.items()}
    fields["inputs"] = [_feature_document(one) for one in feature.inputs]
    return fields
