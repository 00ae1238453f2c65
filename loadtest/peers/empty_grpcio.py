"""The floor of a Python gRPC server: a sync server on raw bytes that answers 900 bytes to anything."""

import argparse
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

METHOD: Final = "/headrace.loadtest.v1.EmptyService/Answer"
ANSWER_BYTES: Final = 900
WORKERS: Final = 8  # one for each connection of the load


def serve(port: int, workers: int = WORKERS) -> grpc.Server:
    """Starts the server on loopback."""
    answer = b"\0" * ANSWER_BYTES

    def reply(request: bytes, context: grpc.ServicerContext) -> bytes:
        return answer

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(reply)
    service, method = METHOD.strip("/").split("/")
    server = grpc.server(ThreadPoolExecutor(workers), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def main() -> int:
    """Serves until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=WORKERS)
    arguments = parser.parse_args()
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: stop.set())
    server = serve(arguments.port, arguments.workers)
    stop.wait()
    server.stop(grace=1).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
