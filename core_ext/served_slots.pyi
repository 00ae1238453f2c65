"""The values of an answer one after the other, as the log of served answers keeps them."""

import numpy as np
from numpy.typing import NDArray

VARIABLE: int
"""Kind of a column of values of different sizes."""
TEXTS: int
"""Kind of a column of lists of texts."""

def read_slots(message: bytes, kinds: NDArray[np.int32]) -> tuple[bytes, bytes, bytes, int, int, int]:
    """A status byte and a u32 length for every value, column after column, and the bytes of those that there are.

    Then row count, registry revision and read time. A kind is the width of a column's slots, VARIABLE or TEXTS; a list
    of texts becomes each text after its u32 length. Raises MalformedAnswerError for bytes that are not such an answer.
    """
