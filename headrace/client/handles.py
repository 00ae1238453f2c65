"""Handles that servers forgot: prepared anew once, for every later read."""

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Final

from headrace.client.batch import PreparedFeatures
from headrace.client.calls import Call, Selection, prepare_call
from headrace.errors import CallerError, FailedPrecondition

RENEWED_MAX: Final = 1_000  # selections of one client; a model server reads a few
_UNKNOWN_HANDLE: Final = "UNKNOWN_HANDLE"


class RenewedHandles:
    """What replaced which handle. A server knows a handle until it restarts or the registry changes."""

    def __init__(self) -> None:
        self._renewed: OrderedDict[bytes, PreparedFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def current(self, service: Selection) -> Selection:
        """The selection with its newest handle."""
        if not isinstance(service, PreparedFeatures):
            return service
        return self._renewed.get(service.handle, service)

    def renew(self, old: PreparedFeatures, new: PreparedFeatures) -> PreparedFeatures:
        """Takes the new handle of an old selection; raises FailedPrecondition when it answers other columns now."""
        if [(c.feature, c.value_type) for c in old.columns] != [(c.feature, c.value_type) for c in new.columns]:
            raise FailedPrecondition(
                "the prepared selection answers other columns now; prepare it again and look at its columns",
                reason="SELECTION_CHANGED",
                field="handle",
                metadata={"handle": old.handle.hex()},
            )
        renewed = replace(old, handle=new.handle, registry_revision=new.registry_revision)
        with self._lock:
            self._renewed[old.handle] = renewed
            if len(self._renewed) > RENEWED_MAX:
                self._renewed.popitem(last=False)
        return renewed


def renewal(error: CallerError, service: Selection) -> Call[PreparedFeatures] | None:
    """The call that prepares a forgotten selection anew, its versions pinned; None where the error is another one."""
    if not isinstance(service, PreparedFeatures) or error.reason != _UNKNOWN_HANDLE:
        return None
    if service.feature_service:
        return prepare_call(service.feature_service, ())
    return prepare_call(None, [column.feature for column in service.columns])
