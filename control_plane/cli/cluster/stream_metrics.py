"""What servers tell of their streams at their Prometheus endpoints: how far behind, and how fresh."""

import math
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

ASK_LIMIT_S: Final = 2.0
ANSWER_BYTES_MAX: Final = 16 << 20
LAG: Final = "headrace_pipeline_lag"
FRESHNESS: Final = "headrace_pipeline_freshness_total"
EVENTS: Final = "headrace_pipeline_events_total"
DEAD_LETTERS: Final = "headrace_pipeline_dead_letters_total"
QUANTILE: Final = 0.99


@dataclass(frozen=True, slots=True)
class StreamState:
    """Of one process. Freshness is from the broker's clock to here, of all events since the process began: the bound
    of the bucket that holds the 99th of a hundred, None before the first event.
    """

    lag: int
    event_count: int
    dead_letter_count: int
    freshness_p99_s: float | None


def stream_state(address: str) -> StreamState | None:
    """What the metrics at HOST:PORT say; None where nobody answers or the process reads no stream."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=ASK_LIMIT_S) as answer:
            text = answer.read(ANSWER_BYTES_MAX).decode("utf-8", "replace")
    except (urllib.error.URLError, OSError, ValueError):
        return None
    return state_of(text)


def state_of(text: str) -> StreamState | None:
    """What a page of metrics says of streams."""
    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except ValueError:
        return None
    lags = [sample.value for sample in samples if sample.name == LAG]
    counts = {name: int(sum(s.value for s in samples if s.name == name)) for name in (EVENTS, DEAD_LETTERS)}
    if not lags and not counts[EVENTS]:
        return None
    return StreamState(int(sum(lags)), counts[EVENTS], counts[DEAD_LETTERS], _quantile(samples))


def _quantile(samples: Iterable[Sample]) -> float | None:
    counts: Counter[float] = Counter()
    for sample in samples:
        if sample.name == FRESHNESS:
            counts[float(sample.labels["le"])] += int(sample.value)
    total = counts[math.inf]
    return next((bound for bound in sorted(counts) if counts[bound] >= QUANTILE * total), None) if total else None


def lag_text(state: StreamState | None) -> str:
    """For a table."""
    return "-" if state is None else f"{state.lag:,}"


def freshness_text(state: StreamState | None) -> str:
    """For a table."""
    if state is None or state.freshness_p99_s is None:
        return "-"
    bound = state.freshness_p99_s
    return "over a minute" if math.isinf(bound) else f"under {bound:g} s"
