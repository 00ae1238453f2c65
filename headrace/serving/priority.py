"""Priority of threads among themselves: where cores are short, reads go first (docs/decisions/0030)."""

import os
import sys
import threading
from typing import Final

BESIDE_READS: Final = 10  # steps of niceness where no read of the loop waits: a tenth of a busy core is left to them


def lower_priority(steps: int) -> None:
    """Lets the calling thread yield the processor to others of its process, which only Linux can do."""
    if steps and sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + steps)
