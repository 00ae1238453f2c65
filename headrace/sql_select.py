"""Checks that a text is one SELECT over named inputs, by the parser of the engine that will run it."""

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
        try:
            names = set(connection.get_table_names(query))
        except duckdb.Error as error:
            message = f"query cannot be read: {' '.join(str(error).split())[:300]}"
            raise invalid(message, "INVALID_SQL", _FIELD) from error
    _check_names(names, inputs)


CLOSED: Final = (
    ("enable_external_access", "false"),
    ("python_enable_replacements", "false"),
    ("autoload_known_extensions", "false"),
    ("autoinstall_known_extensions", "false"),
)
"""Settings under which a statement reaches no file, no network and no variable of this process."""


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
