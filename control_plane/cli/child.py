"""Becomes a server that ends with its parent: `python -m control_plane.cli.child PARENT_PID MODULE ARGUMENT...`.

With `--` instead of a module it becomes the program that follows.
"""

import ctypes
import os
import signal
import sys
from typing import Final

COMMAND: Final = "--"
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def main() -> None:
    """Asks the kernel for a signal at the parent's death, which outlives the exec, and runs the module."""
    parent, module, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the request stood
        sys.exit(0)
    if module == COMMAND:
        os.execvp(arguments[0], arguments)  # noqa: S606  (what our own process asks for)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606  (our own interpreter)


if __name__ == "__main__":
    main()
