"""Training sets by name: their manifests in the catalogue and beside the result, their snapshots pinned."""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.types import BinaryType, NestedField, StringType

from batch.historical.tables import located
from batch.offline.catalogue import OWN_NAMESPACE, Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.view_table import ViewTable
from batch.training.manifest import Manifest, decode_manifest
from headrace.errors import Aborted, AlreadyExists, NotFound
from headrace.names import parse_pinned_ref

IDENTIFIER: Final = (*OWN_NAMESPACE, "training_sets")
MANIFEST_SUFFIX: Final = ".manifest.json"
COMMIT_TRIES_MAX: Final = 16

_ICEBERG: Final = Schema(
    NestedField(1, "name", StringType(), required=True), NestedField(2, "manifest", BinaryType(), required=True)
)
_ARROW: Final = pa.schema(
    [pa.field("name", pa.string(), nullable=False), pa.field("manifest", pa.binary(), nullable=False)]
)


class TrainingSets:
    """Keeps manifests. A name is given once and means the same for ever."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def create(self, manifest: Manifest) -> None:
        """Pins the snapshots, writes the manifest beside the result, and then gives it its name.

        Broken off halfway it leaves pins and a file that the same call, made again, finds in place. The same manifest
        under the same name changes nothing; another one raises AlreadyExists.
        """
        if self._is_known(manifest):
            return
        for view, snapshot_id in manifest.snapshots.items():
            self._table(view).pin(manifest.name, snapshot_id)
        filesystem, path = located(self._catalogue.roots.resolve(manifest.result, "result"))
        with filesystem.open_output_stream(path + MANIFEST_SUFFIX) as file:
            file.write(manifest.encode())
        self._name(manifest)

    def get(self, name: str) -> Manifest:
        """Manifest of a set."""
        for manifest in self.list():
            if manifest.name == name:
                return manifest
        raise NotFound(f"there is no training set {name!r}", reason="UNKNOWN_TRAINING_SET", metadata={"name": name})

    def list(self) -> Sequence[Manifest]:
        """Every set, by name."""
        try:
            rows = self._catalogue.load(IDENTIFIER).scan().to_arrow()
        except NotFound:
            return []
        return sorted(map(decode_manifest, rows["manifest"].to_pylist()), key=lambda manifest: manifest.name)

    def _is_known(self, manifest: Manifest) -> bool:
        try:
            known = self.get(manifest.name)
        except NotFound:
            return False
        if known != manifest:
            raise AlreadyExists(
                f"there is a training set {manifest.name!r} with another manifest; choose another name",
                reason="TRAINING_SET_EXISTS",
                field="name",
                metadata={"name": manifest.name},
            )
        return True

    def _name(self, manifest: Manifest) -> None:
        rows = pa.Table.from_pylist([{"name": manifest.name, "manifest": manifest.encode()}], _ARROW)
        for _ in range(COMMIT_TRIES_MAX):
            # The table is loaded before the name is looked up, so that a name given meanwhile refuses the commit.
            table = self._catalogue.table(IDENTIFIER, _ICEBERG)
            if self._is_known(manifest):
                return
            try:
                table.append(rows)
            except CommitFailedException:
                continue
            return
        raise Aborted("the table of training sets is busy; try again", reason="TABLE_BUSY")

    def _table(self, view: str) -> ViewTable:
        columns = ViewColumns(parse_pinned_ref(view), (), ())
        return ViewTable(columns, lambda: self._catalogue.load(columns.identifier))
