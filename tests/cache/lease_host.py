"""A host that wants to own a volume, asks ten times a second whether it may commit, and says each change as JSON.

Usage: lease_host.py BUCKET HOST
"""

import json
import sys
import time

import trio

from volgate.cache.lease import Lease
from volgate.drivers.s3.settings import S3Settings
from volgate.drivers.s3.store import S3ObjectStore
from volgate.errors import StorageException


async def main(bucket, host):
    store = S3ObjectStore(S3Settings.from_source(f"s3://{bucket}/data", {}))
    await store.open(writable=True)
    lease = Lease(store)
    await lease.acquire(json.dumps({"host": host}).encode())
    async with trio.open_nursery() as nursery:
        await nursery.start(lease.run)
        before, owned_at = None, 0.0
        while True:
            try:
                lease.check()
                answer, why, owned_at = "owner", "", time.monotonic()
            except StorageException as error:
                answer, why = type(error).__name__, str(error)
            if answer != before:
                print(json.dumps({"answer": answer, "why": why, "at": time.monotonic(), "owned_at": owned_at}))
            before = answer
            await trio.sleep(0.1)


trio.run(main, *sys.argv[1:])
