"""rustworkx in its own environment: holds one graph and answers commands on lines of JSON."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> int:
    """Reads commands until the input ends."""
    import rustworkx  # lazy: only this process' environment has it

    ends = np.load(Path(sys.argv[1]))
    graph = rustworkx.PyDiGraph(multigraph=True)
    graph.add_nodes_from(range(int(sys.argv[2])))
    graph.extend_from_edge_list(list(map(tuple, ends.tolist())))
    _answer({"version": rustworkx.__version__, "edges": graph.num_edges()})
    for line in sys.stdin:
        command = json.loads(line)
        spans, sizes = [], []
        for node in command["nodes"]:
            began = time.perf_counter()
            found = rustworkx.descendants(graph, node)
            spans.append(time.perf_counter() - began)
            sizes.append(len(found))
            if command["keep"]:
                np.save(command["keep"], np.array(sorted(found), np.uint32))
        _answer({"seconds": spans, "sizes": sizes})
    return 0


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
