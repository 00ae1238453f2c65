"""On-demand features of a plan: expressions over features, request data and one another, run when rows are read."""

from collections.abc import Sequence
from typing import Final, final

from core_ext.expressions import Program

FROM_FEATURE: Final[int]
FROM_REQUEST: Final[int]
FROM_PROGRAM: Final[int]
REQUEST_COLUMNS_MAX: Final[int]

@final
class OnDemand:
    """What a plan of the request core computes. Any number of threads may use one.

    request_fields: (name, element type) of the request data that every read must bring. programs: (program, sources,
    default, fallback); a source is (FROM_FEATURE, input of the plan), (FROM_REQUEST, field) or (FROM_PROGRAM, an
    earlier program), one per input of the program. The default is given as slot bytes or None. Raises ValueError where
    they do not fit together.
    """

    input_types: dict[int, int]
    """Element types of the plan's inputs that are read."""
    result_types: tuple[int, ...]
    """Element types of the results."""
    def __init__(
        self,
        request_fields: Sequence[tuple[str, int]],
        programs: Sequence[tuple[Program, Sequence[tuple[int, int]], bytes | None, int]],
    ) -> None: ...
