"""Time for tests."""

from datetime import UTC, datetime, timedelta


class Clock:
    """Moves on by one second at each look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now
