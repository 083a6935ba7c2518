"""What a host with many volumes costs who looks at it: with no files in them, then with many.

One line of JSON for each figure to standard output, a table of medians with (min..max) to standard error.
Usage: tools/bench host [--volumes N] [--mounts N] [--files N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests/control"))
from figures import spread

import controlling
import mounting

_AT_ONCE = 8


def timed(call: Callable[[], object]) -> float:
    """Return how many milliseconds a call took."""
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def run(*words: object) -> None:
    """Run a verb that has to succeed."""
    done = mounting.volgate(*words, timeout_s=600)
    assert done.returncode == 0, done.stderr


def looks(api: controlling.Api, name: str) -> dict[str, Callable[[], object]]:
    """Return the ways to look at the host, and at one mounted volume."""
    return {
        "volgate list": lambda: run("list", "--json"),
        "volgate volume list": lambda: run("volume", "list", "--json"),
        "volgate status NAME": lambda: run("status", name, "--json"),
        "GET /v1/volumes, all": lambda: api.all_items("/v1/volumes", 1000),
        "GET /v1/volumes, first 100": lambda: api.ok("GET", "/v1/volumes?limit=100"),
        "GET /v1/volumes/NAME/status": lambda: api.ok("GET", f"/v1/volumes/{name}/status"),
        "GET /metrics": lambda: api.ask("GET", "/metrics"),
    }


def main(volumes: int, mounts: int, files: int, rounds: int) -> None:
    """Measure and print."""
    results: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    names = [f"bench-{os.getpid()}-{number}" for number in range(volumes)]
    with (
        tempfile.TemporaryDirectory(prefix="volgate-bench-", dir="/var/tmp") as place,
        controlling.serving(Path(place)) as api,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        try:
            for name in names:
                (Path(place) / name).mkdir()
                body = {"volume_id": name, "source": f"{place}/{name}", "mount_point": f"{place}/{name}.mnt"}
                api.ok("POST", "/v1/volumes", body)
            for count in (0, files):
                for name in names[:mounts]:
                    for number in range(count):
                        (Path(place) / name / str(number)).touch()
                list(pool.map(lambda name: api.ok("POST", f"/v1/volumes/{name}/mount"), names[:mounts]))
                for _ in range(rounds):
                    for row, look in looks(api, names[0]).items():
                        value = timed(look)
                        results[row][count].append(value)
                        print(json.dumps({"name": row, "files": count, "value": value, "unit": "ms"}), flush=True)
                list(pool.map(lambda name: api.ok("POST", f"/v1/volumes/{name}/unmount"), names[:mounts]))
        finally:
            mounting.detach_below(Path(place))
            for name in names:
                api.ask("DELETE", f"/v1/volumes/{name}")
    print(f"| {volumes} volumes, {mounts} mounted | no files, ms | {files} files in each mount, ms |", file=sys.stderr)
    for row, found in results.items():
        print("|", row, "|", " | ".join(spread(values, 1) for values in found.values()), "|", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--volumes", type=int, default=1000)
    parser.add_argument("--mounts", type=int, default=50)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    main(given.volumes, given.mounts, given.files, given.rounds)
