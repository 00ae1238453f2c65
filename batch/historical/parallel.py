"""Work over the parts of a history by several threads."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

WORKERS: Final = 2  # threads that decode and feed; each keeps its own matches
Advance = Callable[[int], None]
Part = TypeVar("Part")


def in_parallel(parts: Sequence[Part], work: Callable[[Iterator[Part]], None]) -> None:
    """Runs `work` in every worker over parts that they share; the first error stops all and is raised."""
    left = deque(parts)

    def take() -> Iterator[Part]:
        while left:
            try:
                yield left.popleft()
            except IndexError:
                return

    def run() -> None:
        try:
            work(take())
        except BaseException:
            left.clear()
            raise

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="as-of") as pool:
        try:
            for done in [pool.submit(run) for _ in range(WORKERS)]:
                done.result()
        except BaseException:  # an interrupt comes to this thread: the workers end with the part that they have
            left.clear()
            raise


def ahead(items: Iterator[Part]) -> Iterator[Part]:
    """The items, each made by another thread while the one before it is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        held = pool.submit(next, items, None)
        while (item := held.result()) is not None:
            held = pool.submit(next, items, None)
            yield item
