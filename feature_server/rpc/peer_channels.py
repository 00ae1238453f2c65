"""Sub-requests to peers over gRPC: one channel per address, answers by callback."""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from core_ext.row_codec import CorruptRowError
from feature_server.ring.fan_out import Rows, Send
from headrace.client.channel import CHANNEL_OPTIONS, metadata
from headrace.client.tls import Tls, channel_credentials, open_channel
from headrace.errors import DataLoss, HeadraceError
from headrace.status import from_rpc_error
from protos.feature.v1 import online_feature_service_pb2 as pb_online
from protos.feature.v1 import shard_service_pb2 as pb

METHOD: Final = "/headrace.feature.v1.ShardService/BatchGetRows"


class PeerChannels:
    """Satisfies PeerTransport. `check` raises CorruptRowError for rows that no peer may answer."""

    def __init__(
        self, token: str | None, tls: Tls | None, check: Callable[[Sequence[bytes], Sequence[bytes | None]], None]
    ) -> None:
        self._metadata = metadata(token)
        self._credentials = channel_credentials(tls)
        self._check = check
        self._lock = threading.Lock()
        self._channels: dict[str, tuple[grpc.Channel, Any]] = {}  # Any: a multicallable has no common type

    def send(self, asked: Send, timeout_s: float, done: Callable[[Rows | HeadraceError], None]) -> None:
        """Sends at once; `done` is called from a thread of gRPC."""
        request = pb.BatchGetRowsRequest(
            ring_epoch=asked.ring_epoch,
            keys=asked.keys,
            min_offsets=[
                pb_online.WriteToken(shard=shard, epoch=epoch, offset=offset)
                for shard, epoch, offset in asked.min_offsets
            ],
        )
        future = self._call(asked.address).future(
            request.SerializeToString(), timeout=timeout_s, metadata=self._metadata
        )
        future.add_done_callback(lambda ended: done(self._outcome(asked, ended)))

    def retain(self, addresses: Iterable[str]) -> None:
        """Closes the channels to all others."""
        kept = set(addresses)
        with self._lock:
            gone = [self._channels.pop(address)[0] for address in [*self._channels] if address not in kept]
        for channel in gone:
            channel.close()

    def close(self) -> None:
        """Closes every channel; what is on its way fails."""
        self.retain(())

    def _call(self, address: str) -> Any:
        with self._lock:
            held = self._channels.get(address)
            if held is None:
                channel = open_channel(address, CHANNEL_OPTIONS, self._credentials)
                held = self._channels[address] = channel, channel.unary_unary(METHOD)
            return held[1]

    def _outcome(self, asked: Send, ended: Any) -> Rows | HeadraceError:
        try:
            answer = pb.BatchGetRowsResponse.FromString(ended.result())
            rows = [row or None for row in answer.rows]
            if len(rows) != len(asked.keys):
                return _malformed(asked, f"{len(rows)} rows for {len(asked.keys)} keys")
            self._check(asked.keys, rows)
        except grpc.RpcError as error:
            return from_rpc_error(error)
        except (CorruptRowError, DecodeError) as error:
            return _malformed(asked, str(error))
        except grpc.FutureCancelledError:
            return _malformed(asked, "the channel was closed")
        return Rows(rows, [*answer.unavailable_rows])


def _malformed(asked: Send, problem: str) -> DataLoss:
    return DataLoss(
        f"peer {asked.peer} answered what is no answer: {problem}",
        reason="PEER_ANSWER_DAMAGED",
        metadata={"peer": asked.peer},
    )
