"""Keeps the registry that is served: takes newer ones, refuses older ones, survives without its source."""

from collections.abc import Callable

from feature_server.domain.catalogue import Catalogue
from feature_server.domain.shard_set import ShardSet
from headrace.definitions.registered import RegistryState
from headrace.errors import FailedPrecondition
from headrace.serving.logging import EventLog


class RegistryKeeper:
    """Decides about every registry that arrives."""

    def __init__(self, catalogue: Catalogue, shards: ShardSet, log: EventLog) -> None:
        self._catalogue = catalogue
        self._shards = shards
        self._log = log
        self.on_first: Callable[[], None] = lambda: None

    @property
    def revision(self) -> int:
        """Revision that is served; 0 before the first."""
        return self._catalogue.revision

    def accept(self, state: RegistryState) -> None:
        """Serves a registry. One that knows fewer ids than rows were written under is refused: ids would be reused."""
        seen = max(self._shards.highest_id, self._catalogue.highest_id)
        if state.highest_id < seen:
            raise FailedPrecondition(
                f"the registry knows ids up to {state.highest_id} and this store has seen {seen}: an older copy was "
                "restored; restore the newer one, or start this store anew",
                reason="REGISTRY_BEHIND",
                metadata={"highest_id": str(state.highest_id), "seen": str(seen)},
            )
        is_first = not self._catalogue.revision
        self._shards.note_highest_id(state.highest_id)  # before a row can be written under a new id
        self._catalogue.publish(state)
        self._log.info("registry_served", revision=state.revision, highest_id=state.highest_id)
        if is_first:
            self.on_first()
