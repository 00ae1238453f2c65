"""The process that Spark forks its Python workers from, with our modules loaded, so that no worker loads them anew."""

import gc
import sys
from collections.abc import MutableMapping
from typing import Final, TypeVar

from pyspark.daemon import manager

import batch.spark.historical
import batch.spark.window_history  # noqa: F401 - what tasks need

JAR: Final = ".jar"
ARCHIVES: Final = (JAR, ".zip")
Finder = TypeVar("Finder")


def forget_archives(path: list[str], importers: MutableMapping[str, Finder]) -> None:
    """Drops importers of archives. For every task Spark has all importers look anew, and each of these then reads the
    whole directory of its archive, a jar of Java classes among them: 0.1 s a task. What is loaded stays loaded, and an
    importer that is wanted again comes back by itself.
    """
    path[:] = [one for one in path if not one.endswith(JAR)]
    for one in [name for name in importers if any(mark in name for mark in ARCHIVES)]:
        del importers[one]


if __name__ == "__main__":
    forget_archives(sys.path, sys.path_importer_cache)
    gc.freeze()  # Spark collects after every task, and what is loaded here is no garbage
    manager()  # type: ignore[no-untyped-call]
