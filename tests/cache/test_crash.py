"""kill -9 of the daemon of a bucket: nothing acknowledged is lost, nothing torn is seen, usage is what there is."""

import contextlib
import json
import os
import random
import threading
import time

import pytest
import trio

import mounting
import s3_server
from mounting import volgate
from volgate.cache.counting import count_objects
from volgate.drivers.s3.settings import S3Settings
from volgate.drivers.s3.store import S3ObjectStore

ROUNDS = int(os.environ.get("VOLGATE_KILL_ROUNDS", "10"))
SIZES = (0, 1, 1000, 65_536, 65_537, 300_000, 9 << 20)


class Writer(threading.Thread):
    """Works on a mount until it dies, and remembers what was acknowledged.

    Attributes:
        kept: content of each name as of its last close or fsync. doubtful: names whose last change was not answered.
    """

    def __init__(self, folder, kept, seed):
        super().__init__()
        self.folder, self.kept, self.random = folder, kept, random.Random(seed)
        self.doubtful = {}

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                self.step()

    def step(self):
        name = f"f{self.random.randrange(12)}"
        what = self.random.choice(["write", "write", "write", "append", "rename", "unlink", "sync"])
        before, path = self.kept.get(name), self.folder / name
        if what in ("write", "sync"):
            content = self.random.randbytes(self.random.choice(SIZES))
            self.doubtful = {name: (before, content)}
            with open(self.folder / f"{name}.new", "wb") as file:
                file.write(content)
                if what == "sync":
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(self.folder / f"{name}.new", path)
            self.kept[name] = content
        elif before is None:
            return
        elif what == "append":
            more = self.random.randbytes(700)
            self.doubtful = {name: (before, before + more)}
            with open(path, "ab", buffering=0) as file:
                file.write(more)
            self.kept[name] = before + more
        elif what == "rename":
            other = f"f{self.random.randrange(12)}"
            if other == name:
                return
            self.doubtful = {name: (before, None), other: (self.kept.get(other), before)}
            os.rename(path, self.folder / other)
            self.kept[other] = self.kept.pop(name)
        else:
            self.doubtful = {name: (before, None)}
            os.unlink(path)
            del self.kept[name]
        self.doubtful = {}


def content_of(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@pytest.mark.timeout(60 + 15 * ROUNDS)
def test_nothing_acknowledged_is_lost_by_kill_9_at_random_moments(place, monkeypatch):
    with s3_server.running(place / "s3") as server:
        server.make_bucket("bucket")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        path, kept, seed = place / "mnt", {}, int(time.time())
        path.mkdir()
        print("seed", seed)

        def start():
            return mounting.start("s3://bucket/data", path, "-o", f"cache_dir={place / 'cache'}", "--quota", "10GiB")

        for number in range(ROUNDS):
            mount = start()
            writer = Writer(path, kept, seed + number)
            writer.start()
            time.sleep(random.Random(seed - number).uniform(0.1, 1.5))
            mount.kill()
            writer.join(30)
            mount = start()
            for name in {f"f{n}" for n in range(12)} - set(writer.doubtful):
                assert content_of(path / name) == kept.get(name), (number, name)
            for name, allowed in writer.doubtful.items():
                found = content_of(path / name)
                assert found in allowed, (number, name)
                kept.pop(name, None)
                if found is not None:
                    kept[name] = found
            for left in set(os.listdir(path)) - set(kept):
                assert left.endswith(".new")
                (path / left).unlink()
            used = json.loads(volgate("quota", "show", path, "--json").stdout)
            assert (used["used_bytes"], used["file_count"]) == (sum(map(len, kept.values())), len(kept)), number
            assert mount.stop() == 0, mount.log()
            stored = {file.name for file in (server.data / "bucket" / "data").iterdir()} - {".volgate"}
            assert stored == set(kept), (number, mount.log())
            counted = trio.run(count)
            assert (counted.bytes_, counted.inodes) == (sum(map(len, kept.values())), len(kept)), number


async def count():
    store = S3ObjectStore(S3Settings.from_source("s3://bucket/data", {}))
    try:
        return await count_objects(store, {}, lambda _: None)
    finally:
        await store.close()
