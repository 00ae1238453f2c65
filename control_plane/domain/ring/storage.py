"""What the ring needs of a durable store."""

from typing import Protocol

from headrace.ring.values import Ring


class RingStore(Protocol):
    """Rings by epoch. One epoch has one ring, for ever."""

    def read(self) -> Ring:
        """The ring of the newest epoch; epoch 0 where none was formed."""

    def append(self, ring: Ring, cause: str) -> None:
        """Stores the ring of the next epoch durably; raises Aborted where another writer has taken that epoch."""
