"""Which servers a command talks to: flag, then environment, then the folder of a running platform."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from headrace.errors import FailedPrecondition, InvalidArgument

ENDPOINT_VARIABLE: Final = "HEADRACE_ENDPOINT"
DATA_VARIABLE: Final = "HEADRACE_DATA"
DATA_FOLDER_DEFAULT: Final = Path(".headrace")
ENDPOINTS_FILE: Final = "endpoints.json"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of one platform as host:port; empty where there is no such server."""

    control: str = ""
    features: str = ""
    metrics_control: str = ""
    metrics_features: str = ""
    pid: int = 0
    history: str = ""
    metrics_history: str = ""
    drain: str = ""
    metrics_drain: str = ""
    lake: str = ""  # absolute folder of the offline store
    kafka: str = ""
    pipeline: str = ""
    metrics_pipeline: str = ""
    sink: str = ""
    metrics_sink: str = ""
    ring: Mapping[str, str] = field(default_factory=dict)  # servers of the ring, and where their metrics are

    def write(self, folder: Path) -> None:
        """Leaves the addresses in the data folder, whole or not at all."""
        draft = folder / f"{ENDPOINTS_FILE}.new"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        draft.replace(folder / ENDPOINTS_FILE)


def resolve(environment: Mapping[str, str], endpoint: str | None, data: Path | None) -> Endpoints:
    """Addresses by flag > environment > ./.headrace; an endpoint names servers, a data folder names a platform."""
    if endpoint is not None:
        return parse_endpoint(endpoint, "--endpoint")
    if data is None and environment.get(ENDPOINT_VARIABLE):
        return parse_endpoint(environment[ENDPOINT_VARIABLE], ENDPOINT_VARIABLE)
    return read_endpoints(data_folder(environment, data))


def data_folder(environment: Mapping[str, str], data: Path | None) -> Path:
    """The data folder by flag > environment > ./.headrace."""
    return data or Path(environment.get(DATA_VARIABLE) or DATA_FOLDER_DEFAULT)


def parse_endpoint(text: str, origin: str) -> Endpoints:
    """Addresses of "control=HOST:PORT,features=HOST:PORT,history=HOST:PORT", any of which may be left out."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, address = part.strip().partition("=")
        port = address.rpartition(":")[2]
        if name not in ("control", "features", "history") or name in found or not port.isdecimal():
            raise InvalidArgument(
                f"{origin} is {text!r}; write it like 'control=127.0.0.1:6570,features=127.0.0.1:6571'",
                reason="ENDPOINT",
                field=origin,
                metadata={"endpoint": text},
            )
        found[name] = address
    return Endpoints(
        control=found.get("control", ""), features=found.get("features", ""), history=found.get("history", "")
    )


def read_endpoints(folder: Path) -> Endpoints:
    """Addresses that a running `headrace up` left in its data folder."""
    file = folder / ENDPOINTS_FILE
    try:
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Endpoints(**fields)
    except FileNotFoundError as error:
        raise FailedPrecondition(
            f"no platform runs on the data folder {folder}; start one with 'headrace up', or name its servers with "
            "--endpoint or its folder with --data",
            reason="NOT_RUNNING",
            metadata={"folder": str(folder)},
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise FailedPrecondition(
            f"{file} cannot be read ({error}); stop the platform and start it again",
            reason="ENDPOINTS_FILE",
            metadata={"file": str(file)},
        ) from error
