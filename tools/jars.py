"""Brings the jars of tools/jars/SET.xml into .cache/jars/SET, held to the SHA-256 lines of tools/jars/SET.lock.

    tools/jars.py spark           fetch what is missing; nothing to do takes 0.1 s
    tools/jars.py spark --lock    fetch anew and write the lock; look at its diff before committing it

The jars are named by Maven coordinates and resolved by the Ivy that pyspark carries, so that pip and java suffice.
Without a network, put the files of the lock into the folder by hand: the check is the same.
"""

import hashlib
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
IVY_LIMIT_S = 900  # 143 MB on a slow line
OUTPUT_LINES_SHOWN = 12


def fail(message: str) -> NoReturn:
    sys.exit(f"jars: {message}")


def digests(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of its bytes."""
    found = {}
    for path in sorted(folder.glob("*.jar")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def read_lock(path: Path) -> dict[str, str]:
    lines = [line.split() for line in path.read_text().splitlines() if line]
    return {name: digest for digest, name in lines}


def differences(found: dict[str, str], locked: dict[str, str]) -> list[str]:
    lost = [f"{name} is missing" for name in locked if name not in found]
    strange = [f"{name} is not in the lock" for name in found if name not in locked]
    other = [f"{name} has SHA-256 {found[name]}" for name in locked if found.get(name, locked[name]) != locked[name]]
    return lost + strange + other


def ivy() -> Path:
    spec = find_spec("pyspark")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in sorted(Path(folder).glob("jars/ivy-*.jar"))]
    return found[0] if found else fail("no pyspark in this environment, which carries Ivy: run `make setup`")


def fetch(name: str, into: Path) -> None:
    """Resolves the set with an Ivy cache of its own, so that nothing of the home folder is read or written."""
    # Some modules call their jar a bundle; the file is a jar all the same.
    command = ["java", "-jar", str(ivy()), "-ivy", str(ROOT / f"tools/jars/{name}.xml"), "-types", "jar", "bundle"]
    command += ["-cache", str(ROOT / ".cache/ivy"), "-retrieve", f"{into}/[artifact]-[revision].[ext]"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=IVY_LIMIT_S, check=False)
    except FileNotFoundError:
        fail("no java: install openjdk-17-jre-headless, then run this again")
    except subprocess.TimeoutExpired:
        fail(f"Ivy took more than {IVY_LIMIT_S} s: run this again, it keeps what it has")
    if run.returncode != 0:
        print("\n".join((run.stdout + run.stderr).splitlines()[-OUTPUT_LINES_SHOWN:]), file=sys.stderr)
        fail(
            f"the jars of tools/jars/{name}.xml could not be fetched: the Maven repository must be reachable for this "
            f"first set-up; or put the files of tools/jars/{name}.lock into .cache/jars/{name} by hand"
        )


def main(arguments: list[str]) -> None:
    sets = sorted(path.stem for path in (ROOT / "tools/jars").glob("*.xml"))
    if not arguments or arguments[0] not in sets or arguments[1:] not in ([], ["--lock"]):
        fail(f"usage: tools/jars.py SET [--lock]; sets: {', '.join(sets)}")
    name, lock = arguments[0], ROOT / f"tools/jars/{arguments[0]}.lock"
    folder, part = ROOT / ".cache/jars" / name, ROOT / f".cache/jars/{name}.part"
    locking = arguments[1:] == ["--lock"]
    if not locking and differences(digests(folder), read_lock(lock)) == []:
        return
    shutil.rmtree(part, ignore_errors=True)
    print(f"jars: the set {name} into {folder.relative_to(ROOT)}")
    fetch(name, part)
    found = digests(part)
    if locking:
        lock.write_text("".join(f"{digest}  {jar}\n" for jar, digest in found.items()))
    elif wrong := differences(found, read_lock(lock)):
        fail(f"{'; '.join(wrong)}: not what tools/jars/{name}.lock says, so it is not used")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
