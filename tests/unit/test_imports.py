"""Holds the import arrows between the folders, and that every module imports alone."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = {"headrace", "core_ext", "protos"}
SERVERS = ("batch", "control_plane", "feature_server", "vector_server")

# Folder -> folders of ours that it may import, itself included.
ARROWS = {
    "protos": {"protos"},
    "core_ext": {"core_ext"},
    "headrace": SHARED,
    **{server: {server, *SHARED} for server in SERVERS},
    "loadtest": {"loadtest", "batch", "tools", *SHARED},  # jobs have no server to measure through; brokers are a tool
    "examples": {"examples", "headrace", "protos"},
}
# Layer of a server -> layers of the same server that it may not import: rpc -> domain <- storage.
LAYERS = {
    "domain": {"app", "cli", "http", "rpc", "storage", "store"},
    "storage": {"app", "cli", "http", "rpc"},
    "store": {"app", "cli", "http", "rpc"},
    "rpc": {"app", "cli", "http", "storage", "store"},
}
# The only places of the product that may see a generated message: servicers, clients and converters.
GENERATED_ALLOWED = ("protos/", "headrace/client/", "headrace/serving/", "headrace/status.py", "loadtest/", "examples/")
GENERATED_NAMES = ("client", "convert")  # of a folder or a file

# Libraries that change the interpreter when imported, so that only the modules that ask for them may load them.
NOT_SHARED = {"locust", "gevent"}
# Peers live in environments of their own (loadtest/peers), with the modules that run there.
OTHER_ENVIRONMENTS = {"feast", "rustworkx"}

IMPORT_LIMIT_S = 240

# Runs in a fresh interpreter. Each module is imported in a fork of it that has seen nothing of ours, so that an import
# cycle cannot hide behind the order of earlier imports, while libraries are loaded once only.
IMPORT_EACH = """
import importlib, json, os, sys, traceback
libraries, modules = json.load(sys.stdin)
for name in libraries:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # the module that needs it says so below
failed = []
for name in modules:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            print(name, file=sys.stderr)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        failed.append(name)
print(json.dumps(failed))
"""


def sources(folders: tuple[str, ...] = tuple(ARROWS)) -> Iterator[tuple[str, ast.Module]]:
    """Every hand-written Python file of the product with its syntax tree."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name:
                yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def imports_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of every import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def may_see_generated(path: str) -> bool:
    if path.startswith(GENERATED_ALLOWED) or "/rpc/" in path:
        return True
    return any(word in part for part in path.split("/")[1:] for word in GENERATED_NAMES)


def test_folders_import_only_along_the_arrows() -> None:
    broken = []
    for path, tree in sources():
        allowed = ARROWS[path.split("/")[0]]
        for line, name in imports_of(tree):
            target = name.split(".")[0]
            if target in ARROWS.keys() | {"tests", "tools"} and target not in allowed:
                broken.append(f"{path}:{line} imports {name}")
    assert broken == []


def test_layers_of_a_server_import_only_inwards() -> None:
    broken = []
    for path, tree in sources(SERVERS):
        server, layer = path.removesuffix(".py").split("/")[:2]
        for line, name in imports_of(tree):
            parts = name.split(".")
            if parts[0] == server and len(parts) > 1 and parts[1] in LAYERS.get(layer, set()):
                broken.append(f"{path}:{line} imports {name}")
    assert broken == []


def test_generated_code_stays_in_servicers_clients_and_converters() -> None:
    broken = [
        f"{path}:{line} imports {name}"
        for path, tree in sources()
        for line, name in imports_of(tree)
        if "_pb2" in name and not may_see_generated(path)
    ]
    assert broken == []


def test_every_import_stands_at_the_top_or_says_why_not() -> None:
    silent = []
    for path, tree in sources():
        lines = (ROOT / path).read_text().splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
                silent += [
                    f"{path}:{child.lineno}"
                    for child in inner
                    if "#" not in lines[child.lineno - 1] and "#" not in lines[child.lineno - 2]
                ]
    assert silent == []


def test_every_module_imports_alone() -> None:
    wanted = {path: {name.split(".")[0] for _, name in imports_of(tree)} for path, tree in sources()}
    libraries = sorted(set().union(*wanted.values()) - {*ARROWS, *NOT_SHARED, *OTHER_ENVIRONMENTS, "__future__"})
    modules = [module_name(path) for path, names in wanted.items() if not names & OTHER_ENVIRONMENTS]
    modules = [name for name in modules if not name.endswith((".__main__", "migrations.env"))]
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH],
        input=json.dumps([libraries, modules]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=IMPORT_LIMIT_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [], run.stderr
    assert len(modules) > 20, "the scan has lost the modules"
