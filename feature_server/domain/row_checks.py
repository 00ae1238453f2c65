"""Holds stored rows to the schema of their view, whoever stored them."""

from collections.abc import Sequence

from core_ext.row_codec import check_row
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.storage_keys import view_id_of


def check_rows(catalogue: Catalogue, keys: Sequence[bytes], rows: Sequence[bytes | None]) -> None:
    """Raises CorruptRowError for the first row that is damaged."""
    for key, row in zip(keys, rows, strict=True):
        if row is not None:
            view = catalogue.view_of_id(view_id_of(key))
            check_row(row, view.stored_schema if view is not None else None)
