"""Converts transforms of features from and to their messages."""

from headrace.convert.values import duration_from_pb, duration_to_pb
from headrace.definitions.checks import invalid, located
from headrace.definitions.transforms import AGGREGATES, Derived, Latest, Transform, Window
from protos.control.v1 import definitions_pb2 as pb

_NAMES = {number: name for name, number in AGGREGATES.items()}


def transform_to_pb(transform: Transform) -> pb.Transform:
    """Message of a transform."""
    if isinstance(transform, Latest):
        return pb.Transform(latest=pb.LatestTransform(column=transform.column))
    if isinstance(transform, Derived):
        return pb.Transform(derived=pb.DerivedTransform(expression=transform.expression))
    return pb.Transform(
        window=pb.WindowTransform(
            aggregate=pb.Aggregate.ValueType(AGGREGATES[transform.aggregate]),
            expression=transform.expression,
            denominator=transform.denominator,
            over_duration=duration_to_pb(transform.over),
            hop_duration=duration_to_pb(transform.hop),
            lateness_duration=duration_to_pb(transform.lateness),
            quantile=transform.quantile,
            item_count=transform.item_count,
            half_life_duration=None if transform.half_life is None else duration_to_pb(transform.half_life),
            session_gap_duration=None if transform.session_gap is None else duration_to_pb(transform.session_gap),
        )
    )


def transform_from_pb(message: pb.Transform, feature: str) -> Transform:
    """Checked transform of a message."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise invalid(f"transform of feature {feature!r} is not set", "REQUIRED", "transform")
    with located(f"transform.{kind}"):
        if kind == "latest":
            return Latest(message.latest.column)
        return Derived(message.derived.expression) if kind == "derived" else _window(message.window)


def _window(message: pb.WindowTransform) -> Window:
    half_life = message.half_life_duration if message.HasField("half_life_duration") else None
    gap = message.session_gap_duration if message.HasField("session_gap_duration") else None
    hop = gap if gap is not None and not message.HasField("hop_duration") else message.hop_duration
    return Window(
        aggregate=_NAMES.get(message.aggregate, ""),
        expression=message.expression,
        denominator=message.denominator,
        over=duration_from_pb(message.over_duration, "over_duration"),
        hop=duration_from_pb(hop, "hop_duration"),
        lateness=duration_from_pb(message.lateness_duration, "lateness_duration"),
        quantile=message.quantile if message.HasField("quantile") else None,
        item_count=message.item_count if message.HasField("item_count") else None,
        half_life=None if half_life is None else duration_from_pb(half_life, "half_life_duration"),
        session_gap=None if gap is None else duration_from_pb(gap, "session_gap_duration"),
    )
