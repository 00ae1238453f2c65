"""Options that many commands share, and the run that they set up."""

from pathlib import Path
from typing import Annotated, Final

import typer

from control_plane.cli.endpoints import DATA_VARIABLE, ENDPOINT_VARIABLE
from control_plane.cli.output import Format
from control_plane.cli.session import LAKE_VARIABLE, Session

TOKEN_VARIABLE: Final = "HEADRACE_TOKEN"  # noqa: S105  (a name, not a secret)


def _set_form(context: typer.Context, form: Format) -> Format:
    context.find_object(Session).form = form  # type: ignore[union-attr]  # main always gives one
    return form


def _set_endpoint(context: typer.Context, endpoint: str | None) -> str | None:
    context.find_object(Session).endpoint = endpoint  # type: ignore[union-attr]
    return endpoint


def _set_data(context: typer.Context, data: Path | None) -> Path | None:
    context.find_object(Session).data = data  # type: ignore[union-attr]
    return data


def _set_token(context: typer.Context, token: str | None) -> str | None:
    context.find_object(Session).token = token  # type: ignore[union-attr]
    return token


def _set_lake(context: typer.Context, lake: Path | None) -> Path | None:
    context.find_object(Session).lake = lake  # type: ignore[union-attr]
    return lake


Output = Annotated[Format, typer.Option("-o", "--output", callback=_set_form, help="How to print the result.")]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        callback=_set_endpoint,
        help=f"Servers as control=HOST:PORT,features=HOST:PORT; else ${ENDPOINT_VARIABLE}, else the data folder.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", callback=_set_data, help=f"Data folder of a platform; else ${DATA_VARIABLE}, else .headrace."
    ),
]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar=TOKEN_VARIABLE, callback=_set_token, help="Bearer token to send."),
]
Lake = Annotated[
    Path | None,
    typer.Option(
        "--lake",
        callback=_set_lake,
        help=f"Folder of the offline store; else ${LAKE_VARIABLE}, else that of the platform.",
    ),
]


def session_of(context: typer.Context) -> Session:
    """The run that a command belongs to."""
    session = context.find_object(Session)
    assert session is not None, "main gives one to every command"
    return session
