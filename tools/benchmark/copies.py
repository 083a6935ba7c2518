"""What a copy costs beside rsync and rclone, on the same trees, one after the other in each round.

Measured until the target is durable: volgate says so when it returns, after the others the file system is synced.
One line of JSON for each figure to standard output, a table of medians with (min..max) to standard error.
Usage: tools/bench copy [--files N] [--rounds N] [--pairs posix-posix,posix-s3,s3-posix,s3-s3]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from figures import spread

import mounting
import s3_server

_LARGE_BYTES = 512 << 20
_LIMIT_S = 1800
_COPY = "copy-of-"
TREES = ("small", "large")


def grow(path: Path, files: int) -> None:
    """Make the trees: files of up to 16 KiB, a hundred in a directory; and two large ones."""
    chance = random.Random(1)
    for number in range(files):
        folder = path / "small" / str(number // 100)
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / str(number)).write_bytes(chance.randbytes(chance.randrange(1, 16 << 10)))
    (path / "large").mkdir()
    for number in range(2):
        (path / "large" / str(number)).write_bytes(chance.randbytes(1 << 20) * (_LARGE_BYTES >> 20))
    os.sync()


@attrs.frozen
class Place:
    """A volume on one kind of storage. Attributes: mount; native: where rsync and rclone find the same storage."""

    mount: mounting.Mount
    native: str

    @property
    def is_local(self) -> bool:
        """Whether rsync reaches it."""
        return self.native.startswith("/")


def contenders(source: Place, target: Place, tree: str) -> dict[str, list[str]]:
    """Return the commands that copy a tree to ``copy-of-TREE`` in the target."""
    from_, to = f"{source.native}/{tree}", f"{target.native}/{_COPY}{tree}"
    found = {
        "volgate": [
            sys.executable, "-m", "volgate", "--quiet", "copy", "--accept-losses",
            str(source.mount.path / tree), str(target.mount.path / f"{_COPY}{tree}"),
        ],
        "rclone": ["rclone", "copy", "--metadata", from_, to],
    }  # fmt: skip
    if source.is_local and target.is_local:
        found["rsync"] = ["rsync", "-a", f"{from_}/", f"{to}/"]
    return found


def clear(target: Place, tree: str) -> None:
    """Remove a copy, whoever made it."""
    mounting.volgate("refresh", target.mount.path)
    shutil.rmtree(target.mount.path / f"{_COPY}{tree}")
    mounting.volgate("flush", target.mount.path, timeout_s=_LIMIT_S)


def run(command: list[str], target: Place, environment: dict[str, str]) -> float:
    """Return how many seconds a copy takes until it is durable."""
    ours = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}  # rclone ends of it
    started = time.perf_counter()
    done = subprocess.run(
        command, env={**ours, **environment}, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    assert done.returncode == 0, (command, done.stderr[-2000:])
    if target.is_local and "volgate" not in command:
        subprocess.run(["sync", "-f", target.native], check=True, timeout=_LIMIT_S)
    return time.perf_counter() - started


@contextlib.contextmanager
def places(place: Path) -> Iterator[tuple[dict[str, Place], dict[str, str]]]:
    """Give the ends of pairs, and what rclone is told of the server."""
    with contextlib.ExitStack() as stack:
        stack.callback(mounting.detach_below, place)
        server = stack.enter_context(s3_server.running(place / "s3"))
        found = {}
        for end in ("from", "to"):
            local = mounting.mounted(place, name=f"posix-{end}", environment=server.environment)
            mount = stack.enter_context(local)
            found[f"posix-{end}"] = Place(mount, f"{place}/posix-{end}.data")
            server.make_bucket(f"bench-{end}")
            bucket = stack.enter_context(s3_server.mounted(server, f"bench-{end}", place, name=f"s3-{end}"))
            found[f"s3-{end}"] = Place(bucket, f":s3:bench-{end}")
        yield found, {
            "RCLONE_CONFIG": "/dev/null", "RCLONE_S3_PROVIDER": "Other", "RCLONE_S3_ENDPOINT": server.url,
            "RCLONE_S3_ACCESS_KEY_ID": s3_server.ACCESS_KEY, "RCLONE_S3_SECRET_ACCESS_KEY": s3_server.SECRET_KEY,
            "RCLONE_S3_REGION": "us-east-1",
        }  # fmt: skip


def main(files: int, rounds: int, pairs: list[str]) -> None:
    """Measure and print."""
    results: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="volgate-bench-", dir="/var/tmp") as place,
        places(Path(place)) as (found, environment),
    ):
        for name in {pair.partition("-")[0] for pair in pairs}:
            source = found[f"{name}-from"]
            grow(source.mount.path, files)
            mounting.volgate("flush", source.mount.path, timeout_s=_LIMIT_S)
        for _ in range(rounds):
            for pair in pairs:
                name, _, other = pair.partition("-")
                source, target = found[f"{name}-from"], found[f"{other}-to"]
                for tree in TREES:
                    for contender, command in contenders(source, target, tree).items():
                        value = run(command, target, environment)
                        clear(target, tree)
                        results[pair, tree, contender].append(value)
                        figure = {"name": f"{pair} {tree}", "contender": contender, "value": value, "unit": "s"}
                        print(json.dumps(figure), flush=True)
    print("| pair | tree | contender | s | ratio to the best |", file=sys.stderr)
    for (pair, tree, contender), values in results.items():
        best = min(statistics.median(results[key]) for key in results if key[:2] == (pair, tree))
        ratio = statistics.median(values) / best
        print(f"| {pair} | {tree} | {contender} | {spread(values, 2)} | x{ratio:.2f} |", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", default="posix-posix,posix-s3,s3-posix,s3-s3")
    given = parser.parse_args()
    main(given.files, given.rounds, given.pairs.split(","))
