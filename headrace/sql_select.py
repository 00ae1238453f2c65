"""Checks that a text is one SELECT over named inputs, by the parser of the engine that will run it."""

import json
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any, Final

from headrace.definitions.checks import invalid, suggestion

ENGINE: Final = "duckdb"
_FIELD: Final = "query"


def has_engine() -> bool:
    """Whether the engine is installed; it is optional."""
    return find_spec(ENGINE) is not None


def check_select(query: str, inputs: Collection[str]) -> None:
    """Raises InvalidArgument where the text is not one SELECT, or reads what is no input; the engine is installed."""
    import duckdb  # optional

    with duckdb.connect(":memory:", config=dict(CLOSED)) as connection:
        try:
            statements: list[Any] = connection.extract_statements(query)  # Any: the engine has no types
        except duckdb.Error as error:
            message = f"query is no SQL that DuckDB reads: {' '.join(str(error).split())[:300]}"
            raise invalid(message, "INVALID_SQL", _FIELD) from error
        if len(statements) != 1:
            message = f"query holds {len(statements)} statements; write one SELECT"
            raise invalid(message, "NOT_ONE_SELECT", _FIELD)
        if statements[0].type != duckdb.StatementType.SELECT:
            kind = str(statements[0].type).rpartition(".")[2]
            raise invalid(f"query is {kind}; a source only reads: write one SELECT", "NOT_ONE_SELECT", _FIELD)
        (tree,) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone() or ("{}",)
    read: set[str] = set()
    made: set[str] = set()
    _walk(json.loads(tree), read, made)
    _check_names(read - made, inputs)


CLOSED: Final = (
    ("enable_external_access", "false"),
    ("python_enable_replacements", "false"),
    ("autoload_known_extensions", "false"),
    ("autoinstall_known_extensions", "false"),
)
"""Settings under which a statement reaches no file, no network and no variable of this process."""


def _walk(node: Any, read: set[str], made: set[str]) -> None:  # Any: a tree of JSON values
    """Adds the tables that a parsed statement reads, and the names that its WITH clauses make."""
    if isinstance(node, list):
        for one in node:
            _walk(one, read, made)
    elif isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            read.add(str(node.get("table_name")))
        for name, one in node.items():
            if name == "cte_map" and isinstance(one, dict):
                made.update(str(entry.get("key")) for entry in one.get("map", ()))
            _walk(one, read, made)


def _check_names(names: Collection[str], inputs: Collection[str]) -> None:
    for name in sorted(names):
        if name not in inputs:
            raise invalid(
                f"query reads {name!r}, which is none of its inputs{suggestion(name, inputs)}; name files and views by "
                "inputs",
                "UNKNOWN_INPUT",
                _FIELD,
                name=name,
            )
    for name in inputs:
        if name not in names:
            raise invalid(f"query does not read the input {name!r}; leave it out", "UNEXPECTED", f"inputs.{name}")
