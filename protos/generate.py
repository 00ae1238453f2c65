"""Generates the Python stubs beside their .proto files: `python -m protos.generate`."""

import shutil
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def proto_files(root: Path = ROOT) -> list[str]:
    """Paths of all contracts relative to the repository root, sorted."""
    return sorted(str(path.relative_to(root)) for path in (root / "protos").rglob("*.proto"))


def plugin_arguments() -> list[str]:
    """Names the plugins beside the running interpreter, as an unactivated environment is not on PATH."""
    scripts = str(Path(sys.executable).parent)
    found = {name: shutil.which(name, path=scripts) for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")}
    return [f"--plugin={name}={path}" for name, path in found.items() if path]


def generate(root: Path = ROOT) -> None:
    """Writes messages, services and their types; raises RuntimeError when protoc refuses a file."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{root}",
        f"-I{well_known}",
        *plugin_arguments(),
        f"--python_out={root}",
        f"--grpc_python_out={root}",
        f"--mypy_out={root}",
        f"--mypy_grpc_out={root}",
        *proto_files(root),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc failed on {root / 'protos'}; its message stands above")


if __name__ == "__main__":
    generate()
    sys.exit(0)
