"""The Iceberg catalogue of one deployment: a SQL database that Spark's JDBC catalogue reads as well."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import ListType, NestedField
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from batch.offline.columns import TableColumns, ViewColumns, day_partition
from batch.offline.event_columns import NAMESPACE as EVENTS_NAMESPACE
from batch.offline.event_columns import EventColumns
from batch.offline.roots import S3, Roots
from batch.offline.view_table import ViewTable
from headrace.errors import FailedPrecondition, NotFound, Unavailable

CATALOGUE_NAME: Final = "headrace"  # part of every row of the SQL catalogue: Spark must use the same
OWN_NAMESPACE: Final = ("_headrace",)  # no team begins with an underscore
METADATA_FILES_MAX: Final = 20  # older ones are deleted with each commit
TABLE_PROPERTIES: Final = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": str(METADATA_FILES_MAX),
    # A commit that is tried again must first ask anew which rows the table has taken: see view_table.append.
    "commit.retry.num-retries": "0",
}


@dataclass(frozen=True, slots=True)
class OfflineConfig:
    """Where the offline store lies. `file_io` holds pyiceberg's settings, s3.endpoint and its like."""

    catalogue_uri: str  # of SQLAlchemy: sqlite:///FILE or postgresql+psycopg://…
    warehouse: str
    roots: Roots
    file_io: Mapping[str, str] = field(default_factory=dict)


class Catalogue:
    """Opens and makes tables."""

    def __init__(self, config: OfflineConfig) -> None:
        self.roots = config.roots
        self.warehouse = config.roots.resolve(config.warehouse, "warehouse")
        properties = {"uri": config.catalogue_uri, "warehouse": self.warehouse, **config.file_io}
        if self.warehouse.startswith(f"{S3}://"):
            properties["py-io-impl"] = "pyiceberg.io.pyarrow.PyArrowFileIO"
        with _translated():
            self._catalogue = SqlCatalog(CATALOGUE_NAME, **properties)

    def view_table(self, columns: ViewColumns) -> ViewTable:
        """The table of a view version, made where there is none. New system columns are added to an older one."""
        return self._log_table(columns, is_growing=False)

    def event_table(self, columns: EventColumns) -> ViewTable:
        """The table of the events of a source, made where there is none. New columns of the source are added to it."""
        return self._log_table(columns, is_growing=True)

    def _log_table(self, columns: TableColumns, *, is_growing: bool) -> ViewTable:
        schema = columns.iceberg
        table = self.table(columns.identifier, schema, day_partition(schema))
        _evolve(table, schema, is_growing=is_growing)
        return ViewTable(columns, lambda: self.load(columns.identifier))

    def table(
        self, identifier: tuple[str, ...], schema: Schema, partition: PartitionSpec = UNPARTITIONED_PARTITION_SPEC
    ) -> Table:
        """A table, made where there is none."""
        with _translated():
            try:
                return self._catalogue.load_table(identifier)
            except NoSuchTableError:
                return self._made(identifier, schema, partition)

    def load(self, identifier: tuple[str, ...]) -> Table:
        """A table as it is now."""
        with _translated():
            try:
                return self._catalogue.load_table(identifier)
            except NoSuchTableError as error:
                name = ".".join(identifier)
                raise NotFound(f"there is no table {name}", reason="UNKNOWN_TABLE", metadata={"table": name}) from error

    def identifiers(self) -> list[tuple[str, ...]]:
        """Every table of a view version, in order."""
        with _translated():
            found: list[tuple[str, ...]] = []
            for team in self._catalogue.list_namespaces():
                if team == OWN_NAMESPACE:
                    continue
                for namespace in [team, *self._catalogue.list_namespaces(team)]:
                    found += map(tuple, self._catalogue.list_tables(namespace))
            return sorted(set(found))

    def event_identifiers(self) -> list[tuple[str, ...]]:
        """Every table of a source's events, in order."""
        with _translated():
            try:
                teams = self._catalogue.list_namespaces(EVENTS_NAMESPACE)
            except NoSuchNamespaceError:
                return []
            domains = [domain for team in teams for domain in self._catalogue.list_namespaces(team)]
            return sorted(tuple(table) for domain in domains for table in self._catalogue.list_tables(domain))

    def close(self) -> None:
        """Lets go of the database."""
        self._catalogue.close()

    def _made(self, identifier: tuple[str, ...], schema: Schema, partition: PartitionSpec) -> Table:
        *namespace, _ = identifier
        for depth in range(1, len(namespace) + 1):
            try:
                self._catalogue.create_namespace(tuple(namespace[:depth]))
            except (NamespaceAlreadyExistsError, IntegrityError):  # the second: another process was first just now
                continue
        location = "/".join((self.warehouse, *identifier))
        try:
            return self._catalogue.create_table(identifier, schema, location, partition, properties=TABLE_PROPERTIES)
        except TableAlreadyExistsError:  # another process was first
            return self._catalogue.load_table(identifier)


def _evolve(table: Table, wanted: Schema, *, is_growing: bool) -> None:
    """Adds columns that a newer version of the platform writes or, where it grows, of any name; no other difference."""
    have = {item.name: item for item in table.schema().fields}
    missing = [item for item in wanted.fields if item.name not in have]
    wrong = [item.name for item in wanted.fields if item.name in have and not _is_same(have[item.name], item)]
    wrong += [item.name for item in missing if not (is_growing or item.name.startswith("_"))]
    if wrong:
        name = ".".join(table.name())
        raise FailedPrecondition(
            f"table {name} differs in {', '.join(wrong)} from the view version or source of its name; "
            "it belongs to another registry: name another warehouse",
            reason="TABLE_MISMATCH",
            metadata={"table": name, "columns": ",".join(wrong)},
        )
    if missing:
        with table.update_schema() as update:
            for item in missing:
                update.add_column(item.name, item.field_type)  # without values in what is written already


def _is_same(have: NestedField, wanted: NestedField) -> bool:
    if isinstance(have.field_type, ListType) and isinstance(wanted.field_type, ListType):
        return bool(have.field_type.element_type == wanted.field_type.element_type)
    return bool(have.field_type == wanted.field_type)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise Unavailable(
            f"the database of the offline catalogue fails: {type(error).__name__}; look at its address and its disk",
            reason="OFFLINE_CATALOGUE",
        ) from error
    except OSError as error:
        raise Unavailable(f"the warehouse fails: {error}", reason="OFFLINE_WAREHOUSE") from error
