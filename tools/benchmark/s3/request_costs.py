"""What one small request to S3 costs: our store and boto3, interleaved, against versitygw on this host.

JSON lines to standard output: {name, client, value, unit} a round; a table of medians and spreads to standard error.
CPU is of this process alone; the server's is not in it. Usage: tools/bench s3-requests [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import boto3
import trio
from botocore.config import Config

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))
import s3_server
from volgate.drivers.s3.settings import S3Settings
from volgate.drivers.s3.store import S3ObjectStore

BODY = os.urandom(16 << 10)
OBJECTS, AT_ONCE = 200, 32


class OurStore:
    """The driver, ``AT_ONCE`` calls at once in one event loop."""

    def __init__(self, store: S3ObjectStore) -> None:
        self._store = store

    async def run(self, operation: str, count: int, at_once: int) -> None:
        calls = {
            "put": lambda key: self._store.put(key, BODY),
            "get": lambda key: self._store.get_range(key, 0, len(BODY)),
            "head": self._store.head,
        }
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await calls[operation](f"o{number % OBJECTS}")

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(work)


def run_boto3(client, operation: str, count: int, at_once: int) -> None:
    """Do the same by boto3 in threads."""
    calls = {
        "put": lambda key: client.put_object(Bucket="bucket", Key=key, Body=BODY),
        "get": lambda key: client.get_object(Bucket="bucket", Key=key, Range=f"bytes=0-{len(BODY) - 1}")["Body"].read(),
        "head": lambda key: client.head_object(Bucket="bucket", Key=key),
    }
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(calls[operation], [f"o{number % OBJECTS}" for number in range(count)]))


async def main(rounds: int, url: str) -> None:
    """Measure and print."""
    store = S3ObjectStore(S3Settings.from_source("s3://bucket", {"endpoint_url": url}))
    await store.open(writable=True)
    config = Config(max_pool_connections=AT_ONCE, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=config)
    results: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for number in range(-1, rounds):  # the first round warms up
        for operation in ("put", "get", "head"):
            for at_once, count in ((1, 200), (AT_ONCE, 1000)):
                for name in ("volgate", "boto3") if number % 2 else ("boto3", "volgate"):
                    started, cpu = time.monotonic(), time.process_time()
                    if name == "volgate":
                        await OurStore(store).run(operation, count, at_once)
                    else:
                        await trio.to_thread.run_sync(partial(run_boto3, client, operation, count, at_once))
                    if number < 0:
                        continue
                    measured = {
                        "requests": (count / (time.monotonic() - started), "1/s"),
                        "cpu": ((time.process_time() - cpu) / count * 1000, "ms"),
                    }
                    for what, (value, unit) in measured.items():
                        row = f"{operation} 16 KiB, {at_once} at once, {what}"
                        results[row, name, unit].append(value)
                        print(json.dumps({"name": row, "client": name, "value": value, "unit": unit}), flush=True)
    await store.close()
    for (row, name, unit), values in sorted(results.items()):
        middle = statistics.median(values)
        print(f"{row:36} {name:8} {middle:9.2f} {unit:4} ({min(values):.2f}-{max(values):.2f})", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, s3_server.running(Path(place) / "s3") as server:
        server.make_bucket("bucket")
        os.environ.update(server.environment)
        trio.run(main, arguments.rounds, server.url)
