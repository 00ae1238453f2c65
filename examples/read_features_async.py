"""Reads features with the asyncio client: `python examples/read_features_async.py HOST:PORT`."""

import asyncio
import sys

from headrace.client import AsyncClient


async def main(target: str) -> None:
    """Ten batches at once over one channel."""
    async with AsyncClient(target) as client:
        service = await client.prepare("shop.ranking.homepage")
        reads = [client.get_online_features(service, entities={"user_id": [user]}) for user in range(1, 11)]
        for user, batch in enumerate(await asyncio.gather(*reads), start=1):
            print(user, batch.to_arrow().to_pylist()[0])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
