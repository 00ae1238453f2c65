"""Rings by epoch over an engine."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, delete, func, insert, select

from control_plane.store.engine import reading, writing
from control_plane.store.records import to_us
from control_plane.store.tables import ring_epochs
from headrace.definitions.transform import canonical_json
from headrace.errors import Aborted, DataLoss
from headrace.ring.documents import ring_document, ring_of_document
from headrace.ring.values import Ring

EPOCH_COUNT_MAX: Final = 1_000  # kept to look back; of 1,000 servers about 200 KiB each


class SqlRingStore:
    """Every epoch is a row that is never changed, so that two writers cannot give one epoch two rings."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    def read(self) -> Ring:
        """The ring of the newest epoch; raises DataLoss where it cannot be read."""
        newest = select(ring_epochs.c.ring).order_by(ring_epochs.c.epoch.desc()).limit(1)
        with reading(self._engine) as connection:
            text = connection.execute(newest).scalar_one_or_none()
        if text is None:
            return Ring()
        try:
            return ring_of_document(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise DataLoss(f"the stored ring cannot be read: {error}", reason="STORED_RING_DAMAGED") from error

    def append(self, ring: Ring, cause: str) -> None:
        """Stores the ring of the next epoch; raises Aborted where another writer has taken it."""
        row = {
            "epoch": ring.epoch,
            "time_us": to_us(self._clock()),
            "cause": cause,
            "ring": canonical_json(ring_document(ring)),
        }
        with writing(self._engine) as connection:
            held = connection.execute(select(func.coalesce(func.max(ring_epochs.c.epoch), 0))).scalar_one()
            if held != ring.epoch - 1:
                raise Aborted(
                    f"the ring is at epoch {held} and {ring.epoch} was to follow; read it again",
                    reason="CONCURRENT_CHANGE",
                    metadata={"epoch": str(held), "next_epoch": str(ring.epoch)},
                )
            connection.execute(insert(ring_epochs), row)
            connection.execute(delete(ring_epochs).where(ring_epochs.c.epoch <= ring.epoch - EPOCH_COUNT_MAX))
