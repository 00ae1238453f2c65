"""Transforms: how one feature is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final, TypeAlias

from headrace.definitions.checks import check_duration, check_text, invalid, located, suggestion
from headrace.definitions.durations import format_duration, parse_duration
from headrace.expressions import TEXT_LENGTH_MAX, expression_identity
from headrace.names import NAME_LENGTH_MAX

AGGREGATES: Final[Mapping[str, int]] = MappingProxyType(
    {
        name: number
        for number, name in enumerate(
            [
                "count",
                "sum",
                "avg",
                "min",
                "max",
                "first",
                "last",
                "stddev",
                "variance",
                "approx_distinct",
                "quantile",
                "top_k",
                "last_n",
                "ratio",
                "decayed_sum",
            ],
            start=1,
        )
    }
)
"""Aggregates by name, with the numbers of the contracts and of the window kernel."""

WINDOW_MAX: Final = timedelta(days=3_660)  # ten years: a longer history belongs to a table of its own
TOP_COUNT_MAX: Final = 1_000  # of top_k and last_n, so that a row stays far below its cap
_PARAMETERS: Final = {
    "quantile": "quantile",
    "top_k": "item_count",
    "last_n": "item_count",
    "ratio": "denominator",
    "decayed_sum": "half_life",
}


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest value of a source column."""

    column: str

    def __post_init__(self) -> None:
        check_text(self.column, "column", NAME_LENGTH_MAX, required=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """An aggregate of an expression over the events of a sliding window, or of the session that is open in it.

    A value at T covers `over` before T, its start rounded down to a `hop`; events up to `lateness` late still count.
    With a `session_gap` it covers of these the events since the last pause that is longer than the gap, and none once
    the newest is further back than that.
    `expression` may be empty for count alone, which then counts events. Of the parameters only that of the aggregate
    is set: `quantile` (0 to 1), `item_count` (top_k, last_n), `denominator` (ratio), `half_life` (decayed_sum).
    """

    aggregate: str
    expression: str
    over: timedelta
    hop: timedelta
    lateness: timedelta = timedelta(0)
    quantile: float | None = None
    item_count: int | None = None
    denominator: str = ""
    half_life: timedelta | None = None
    session_gap: timedelta | None = None

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            known = ", ".join(AGGREGATES)
            message = f"aggregate {self.aggregate!r} is unknown{suggestion(str(self.aggregate), AGGREGATES)}"
            raise invalid(f"{message}; known: {known}", "UNKNOWN_AGGREGATE", "aggregate", name=self.aggregate)
        if self.expression or self.aggregate != "count":
            check_expression(self.expression, "expression")
        self._check_times()
        wanted = _PARAMETERS.get(self.aggregate)
        for name in sorted(set(_PARAMETERS.values())):
            is_set = getattr(self, name) not in (None, "")
            if is_set != (name == wanted):
                what = "takes no" if is_set else "needs its"
                reason = "UNEXPECTED" if is_set else "REQUIRED"
                raise invalid(f"aggregate {self.aggregate!r} {what} {name}", reason, name, aggregate=self.aggregate)
        self._check_parameter()

    def _check_times(self) -> None:
        for field, duration in (("over", self.over), ("session_gap", self.session_gap), ("hop", self.hop)):
            if duration is not None:
                check_duration(duration, field)
        check_duration(self.lateness, "lateness", zero=True)
        if self.over > WINDOW_MAX:
            raise invalid(f"over is {self.over}; at most {WINDOW_MAX} is allowed", "OUT_OF_RANGE", "over")
        if self.session_gap is not None:
            self._check_session(self.session_gap)
        if self.hop > self.over:
            raise invalid(f"hop is {self.hop}, longer than the window of {self.over}", "OUT_OF_RANGE", "hop")

    def _check_session(self, gap: timedelta) -> None:
        if gap > self.over:
            message = f"session_gap is {gap}, longer than the {self.over} at which its sessions are cut"
            raise invalid(f"{message}: write a shorter gap or a longer over", "OUT_OF_RANGE", "session_gap")
        if self.hop > gap:
            message = f"hop is {self.hop}, longer than the session_gap of {gap}"
            raise invalid(f"{message}: leave it out, or write a shorter one", "OUT_OF_RANGE", "hop")

    def _check_parameter(self) -> None:
        if self.quantile is not None:
            fits = isinstance(self.quantile, float) and 0 <= self.quantile <= 1
            if not fits or round(self.quantile, 6) != self.quantile:
                message = f"quantile is {self.quantile!r}; write a float from 0.0 to 1.0 with at most six decimals"
                raise invalid(message, "OUT_OF_RANGE", "quantile")
        if self.item_count is not None:
            whole = isinstance(self.item_count, int) and not isinstance(self.item_count, bool)
            if not whole or not 1 <= self.item_count <= TOP_COUNT_MAX:
                message = f"item_count is {self.item_count!r}; write a whole number from 1 to {TOP_COUNT_MAX}"
                raise invalid(message, "OUT_OF_RANGE", "item_count")
        if self.denominator:
            check_expression(self.denominator, "denominator")
        if self.half_life is not None:
            check_duration(self.half_life, "half_life")


@dataclass(frozen=True, slots=True)
class Derived:
    """An expression over the other features of the view, none of them derived itself."""

    expression: str

    def __post_init__(self) -> None:
        check_expression(self.expression, "expression")


Transform: TypeAlias = Latest | Window | Derived


def latest(column: str) -> Latest:
    """Transform that serves the newest value of a source column."""
    with located("transform"):
        return Latest(column)


def window(
    aggregate: str,
    expression: str = "",
    *,
    over: timedelta | str,
    hop: timedelta | str,
    lateness: timedelta | str = timedelta(0),
    quantile: float | None = None,
    item_count: int | None = None,
    denominator: str = "",
    half_life: timedelta | str | None = None,
) -> Window:
    """Transform that aggregates over a sliding window: `window("sum", "dep_delay", over="6h", hop="5m")`."""
    with located("transform"):
        return Window(
            aggregate=aggregate,
            expression=expression,
            over=_duration(over, "over"),
            hop=_duration(hop, "hop"),
            lateness=_duration(lateness, "lateness"),
            quantile=quantile,
            item_count=item_count,
            denominator=denominator,
            half_life=None if half_life is None else _duration(half_life, "half_life"),
        )


def session(
    aggregate: str,
    expression: str = "",
    *,
    gap: timedelta | str,
    longest: timedelta | str = "1d",
    hop: timedelta | str | None = None,
    lateness: timedelta | str = timedelta(0),
    quantile: float | None = None,
    item_count: int | None = None,
    denominator: str = "",
    half_life: timedelta | str | None = None,
) -> Window:
    """Transform that aggregates over the open session: `session("sum", "amount", gap="30m", longest="1d")`.

    Of a session that goes on for longer than `longest`, what lies in a window of that length counts; `hop` is the step
    of its start, the gap unless given.
    """
    with located("transform"):
        pause = _duration(gap, "session_gap")
        return Window(
            aggregate=aggregate,
            expression=expression,
            over=_duration(longest, "over"),
            hop=pause if hop is None else _duration(hop, "hop"),
            lateness=_duration(lateness, "lateness"),
            quantile=quantile,
            item_count=item_count,
            denominator=denominator,
            half_life=None if half_life is None else _duration(half_life, "half_life"),
            session_gap=pause,
        )


def derived(expression: str) -> Derived:
    """Transform that computes from other features of the view: `derived("cancelled / flights")`."""
    with located("transform"):
        return Derived(expression)


def check_expression(text: object, field: str) -> str:
    """The text where it is an expression by its syntax; types are checked at registration."""
    checked = check_text(text, field, TEXT_LENGTH_MAX, required=True)
    with located(field):
        expression_identity(checked)
    return checked


def transform_text(transform: Transform) -> str:
    """What is computed, in words that are equal for equal computations."""
    if isinstance(transform, Latest):
        return f"latest {transform.column}"
    if isinstance(transform, Derived):
        return expression_identity(transform.expression).canonical
    parts = [expression_identity(text).canonical for text in (transform.expression, transform.denominator) if text]
    if transform.quantile is not None or transform.item_count is not None:
        parts.append(str(transform.quantile if transform.quantile is not None else transform.item_count))
    if transform.half_life is not None:
        parts.append(f"half life {format_duration(transform.half_life)}")
    late = f" lateness {format_duration(transform.lateness)}" if transform.lateness else ""
    gap = f"session gap {format_duration(transform.session_gap)} " if transform.session_gap is not None else ""
    span = f"{gap}over {format_duration(transform.over)} hop {format_duration(transform.hop)}{late}"
    return f"{transform.aggregate}({', '.join(parts)}) {span}"


def _duration(value: timedelta | str, field: str) -> timedelta:
    return parse_duration(value, field) if isinstance(value, str) else value
