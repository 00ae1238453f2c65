"""Leases of feature servers, by a clock that only goes forward. Kept in memory: a restart renews them all.

No read depends on a lease. One that has run out keeps its server from being waited for, and, a good while later, lets
its shards be copied elsewhere; so that a lease that lasts too long costs time and never a value.
"""

from collections.abc import Callable, Iterable
from typing import Final

LEASE_S: Final = 10.0  # three heartbeats and a pause of the collector
REPLACE_AFTER_S: Final = 60.0  # past the end of a lease: a restart with a few GB of logs to replay is no loss


class Leases:
    """When each server was last heard."""

    def __init__(
        self, clock_s: Callable[[], float], lease_s: float = LEASE_S, replace_after_s: float = REPLACE_AFTER_S
    ) -> None:
        self.lease_s = lease_s
        self._clock_s = clock_s
        self._replace_after_s = replace_after_s
        self._ends_s: dict[str, float] = {}

    def adopt(self, server_ids: Iterable[str]) -> None:
        """Gives a lease to servers that have none, as after a restart."""
        for server_id in server_ids:
            self._ends_s.setdefault(server_id, self._clock_s() + self.lease_s)

    def renew(self, server_id: str) -> None:
        """The server has been heard now."""
        self._ends_s[server_id] = self._clock_s() + self.lease_s

    def forget(self, server_id: str) -> None:
        """The server is gone for good."""
        self._ends_s.pop(server_id, None)

    def live(self) -> frozenset[str]:
        """Servers whose lease holds."""
        now_s = self._clock_s()
        return frozenset(server_id for server_id, end_s in self._ends_s.items() if now_s < end_s)

    def lost(self) -> frozenset[str]:
        """Servers that have been silent for so long that others shall take their shards."""
        now_s = self._clock_s() - self._replace_after_s
        return frozenset(server_id for server_id, end_s in self._ends_s.items() if end_s <= now_s)
