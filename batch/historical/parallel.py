"""Work over the chunks of a history by several threads."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from batch.historical.tables import Chunk

WORKERS: Final = 2  # threads that decode and feed; each keeps its own matches, 40 bytes a spine row
Advance = Callable[[int], None]


def in_parallel(chunks: Sequence[Chunk], work: Callable[[Iterator[Chunk]], None]) -> None:
    """Runs `work` in every worker over chunks that they share; the first error stops all and is raised."""
    left = deque(chunks)

    def take() -> Iterator[Chunk]:
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
        except BaseException:  # an interrupt comes to this thread: the workers end with the chunk that they have
            left.clear()
            raise
