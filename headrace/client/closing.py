"""The end of a client: `close`, or the end of a with block."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Closed by the end of a with block."""

    @abstractmethod
    def close(self) -> None:
        """Closes the channel; calls in flight fail."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
