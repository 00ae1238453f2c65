"""What a command of a job needs: the lake, the registry, and where its progress goes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from batch.historical import MEMORY_LIMIT_BYTES
from batch.historical.join import Progress
from batch.jobs.historical import HistoricalRequest, silent
from batch.jobs.services import WantedService, resolve_service
from batch.jobs.views import Definitions, WantedView, wanted_view
from batch.offline.catalogue import Catalogue
from batch.offline.lake import caller_roots, lake_config, require_lake
from headrace.client import RegistryClient
from headrace.definitions import DefinitionKind, RegisteredView
from headrace.errors import InvalidArgument

MEMORY_LIMIT_MAX: Final = 1 << 40
Arguments = Mapping[str, Any]  # Any: JSON values


@dataclass(frozen=True, slots=True)
class Context:
    """One command under way. `confined` keeps every file that it names below the roots of the lake."""

    lake: Path
    registry: str = ""
    token: str | None = None
    confined: bool = False
    roots: tuple[str, ...] = ()
    progress: Progress = silent

    @contextmanager
    def catalogue(self) -> Iterator[Catalogue]:
        """The lake's catalogue; a folder without one is refused."""
        require_lake(self.lake)
        opened = Catalogue(lake_config(self.lake, self.roots))
        try:
            yield opened
        finally:
            opened.close()

    def service(self, name: str) -> WantedService:
        """A feature service as the registry has it."""
        with self._registry() as client:
            definitions: Definitions = client
            return resolve_service(definitions, name)

    def view(self, name: str) -> WantedView:
        """A feature view as the registry has it, with all of its features."""
        with self._registry() as client:
            record = client.get(DefinitionKind.FEATURE_VIEW, name)
            assert isinstance(record, RegisteredView), "the registry answers the kind that was asked for"
            return wanted_view(client, record)

    @contextmanager
    def _registry(self) -> Iterator[RegistryClient]:
        if not self.registry:
            raise InvalidArgument(
                "no control plane is known, which says what a service holds; name one by --endpoint, or run "
                "'headrace up'",
                reason="NO_REGISTRY",
                field="--endpoint",
            )
        with RegistryClient(self.registry, token=self.token) as client:
            yield client

    def place(self, uri: str, field: str) -> str:
        """A file that a caller names; a service takes only what lies below its roots."""
        return caller_roots(self.lake, self.roots).resolve(uri, field) if self.confined else uri


def request_of(context: Context, arguments: Arguments, output: str) -> HistoricalRequest:
    """The join that the arguments ask for."""
    return HistoricalRequest(
        entities=tuple(context.place(uri, "entities") for uri in arguments["entities"]),
        output=context.place(output, "output"),
        time_column=arguments.get("time_column") or "event_time",
        cutoff_us=int(arguments.get("cutoff_us") or 0),
        memory_limit_bytes=_limit(arguments),
        temp_folder=arguments.get("temp_folder") or None,
    )


def run_id_of(arguments: Arguments) -> UUID | None:
    """The run id that the caller chose."""
    text = arguments.get("run_id")
    return UUID(text) if text else None


def _limit(arguments: Arguments) -> int:
    limit = int(arguments.get("memory_limit_bytes") or MEMORY_LIMIT_BYTES)
    if not 0 < limit <= MEMORY_LIMIT_MAX:
        raise InvalidArgument(
            f"a memory limit of {limit} bytes is not 1 to {MEMORY_LIMIT_MAX}",
            reason="OUT_OF_RANGE",
            field="memory_limit",
            metadata={"bytes": str(limit)},
        )
    return limit
