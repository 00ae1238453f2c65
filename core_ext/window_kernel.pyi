"""Plans of windows as C reads them, every number checked."""

from typing import Final, final

from core_ext.window_plan import WindowPlan

AGGREGATES_OF_LISTS: Final[frozenset[int]]

@final
class NativePlan:
    """A plan for the functions of native/hr_window_*.h; other cores cimport it."""

    def __init__(self, plan: WindowPlan) -> None:
        """Raises ValueError where the plan does not hold together."""
