"""Differences between two definitions, one sentence each."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from headrace.definitions.base import Definition
from headrace.definitions.durations import format_duration
from headrace.definitions.functions import Function
from headrace.definitions.services import ServiceEntry
from headrace.definitions.transform import canonical_json
from headrace.definitions.transforms import Latest, transform_text
from headrace.definitions.values import value_document
from headrace.definitions.views import Feature, FeatureView
from headrace.expressions import expression_identity


def changed(what: str, old: object, new: object) -> list[str]:
    """One sentence where two values differ."""
    return [] if old == new else [f"{what} changes from {_shown(old)} to {_shown(new)}"]


def counted(count: int, what: str) -> str:
    """`1 feature`, `2 features`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def common_differences(old: Definition, new: Definition) -> list[str]:
    """Differences of owner, text and tags."""
    return [
        *changed("owner", old.owner, new.owner),
        *([] if old.description == new.description else ["description changes"]),
        *_tag_differences(old.tags, new.tags),
    ]


def view_mutable_differences(versions: Sequence[FeatureView], new: FeatureView) -> list[str]:
    """Differences of a view, given by its versions in order, that need no version."""
    described = {feature.name: feature.description for view in versions for feature in view.features}
    return [
        *common_differences(versions[-1], new),
        *changed("freshness limit", versions[-1].freshness_sla, new.freshness_sla),
        *(
            f"description of feature {feature.name!r} changes"
            for feature in new.features
            if feature.description != described.get(feature.name, feature.description)
        ),
    ]


def view_frozen_differences(old: FeatureView, new: FeatureView) -> list[str]:
    """Differences of a view that make a new version."""
    sentences = [
        *changed("source", old.source, new.source),
        *changed("time to live", old.ttl, new.ttl),
        *changed("filter", _filter_text(old), _filter_text(new)),
        *changed("fallback", old.fallback.name.lower(), new.fallback.name.lower()),
        *changed("offline", str(old.offline).lower(), str(new.offline).lower()),
        *_lookup_differences(old, new),
        *_function_differences(old, new),
    ]
    return [*sentences, *feature_differences(old.features, new.features)]


def feature_differences(old: Sequence[Feature], new: Sequence[Feature]) -> list[str]:
    """Differences of features that make a new version; none that is gone, as those are refused."""
    before = {feature.name: feature for feature in old}
    sentences = []
    for feature in new:
        if feature.name not in before:
            sentences.append(f"feature {feature.name!r} of type {feature.type} is added")
        else:
            sentences.extend(_feature_differences(before[feature.name], feature))
    order = [feature.name for feature in new if feature.name in before]
    if order != [name for name in before if name in order]:
        sentences.append("features change their order")
    return sentences


def default_key(feature: Feature) -> str:
    """Text that is equal for equal defaults alone: it tells 0.0 from -0.0, and one NaN is every NaN."""
    return "" if feature.default is None else canonical_json(value_document(feature.default))


def _feature_differences(old: Feature, new: Feature) -> list[str]:
    sentences = _transform_differences(old, new)
    if default_key(old) != default_key(new):
        sentences.append(f"default of feature {new.name!r} changes from {_default(old)} to {_default(new)}")
    return sentences


def _transform_differences(old: Feature, new: Feature) -> list[str]:
    if isinstance(old.transform, Latest) and isinstance(new.transform, Latest):
        return changed(f"column of feature {new.name!r}", old.transform.column, new.transform.column)
    before, after = transform_text(old.transform), transform_text(new.transform)
    return changed(f"computation of feature {new.name!r}", before, after)


def lookup_text(entry: ServiceEntry) -> str:
    """A lookup that is pinned and named in full: which view, by which columns, giving which."""
    by = ", ".join(entry.join_key_mapping.values())
    gives = ", ".join(entry.output_prefix + name for name in entry.features)
    return f"{entry.feature_view} by {by} for {gives}"


def _lookup_differences(old: FeatureView, new: FeatureView) -> list[str]:
    before, after = list(map(lookup_text, old.lookups)), list(map(lookup_text, new.lookups))
    return [
        *(f"lookup of {text} is added" for text in after if text not in before),
        *(f"lookup of {text} is removed" for text in before if text not in after),
        *(["lookups change their order"] if before != after and sorted(before) == sorted(after) else []),
    ]


def function_text(function: Function) -> str:
    """A function as plans show it."""
    takes, pinned = ", ".join(function.columns), function.digest[:12]
    return f"{function.name} {function.type} by {function.path}({takes}), source {pinned}, native: no"


def _function_differences(old: FeatureView, new: FeatureView) -> list[str]:
    before, after = list(map(function_text, old.functions)), list(map(function_text, new.functions))
    return [
        *(f"function {text} is added" for text in after if text not in before),
        *(f"function {text} is removed" for text in before if text not in after),
        *(["functions change their order"] if before != after and sorted(before) == sorted(after) else []),
    ]


def _filter_text(view: FeatureView) -> str:
    return expression_identity(view.filter).canonical if view.filter else ""


def _tag_differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [
        *(f"tag {key!r} is added" for key in new if key not in old),
        *(f"tag {key!r} is removed" for key in old if key not in new),
        *(f"tag {key!r} changes" for key in new if key in old and old[key] != new[key]),
    ]


def _default(feature: Feature) -> str:
    if feature.default is None:
        return "none"
    text = repr(feature.default)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _shown(value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    return "none" if value in (None, "") else repr(value)
