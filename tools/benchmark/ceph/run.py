"""What an operation costs on CephFS: libcephfs itself, volgate by libcephfs, volgate over ceph-fuse, ceph-fuse alone.

Contenders take turns within each round, each in a new directory of one cluster of memory (tools/mini-ceph); JSON lines
to standard output, a table of medians with (min..max) to standard error. Usage: tools/bench ceph [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))
from figures import spread

import ceph_cluster
import mounting

OPERATIONS = Path(__file__).with_name("operations.py")
SPEEDS = ("seqwrite", "seqread")


def main(rounds: int) -> None:
    """Measure and print."""
    place = Path(tempfile.mkdtemp(prefix="volgate-bench-", dir="/var/tmp"))
    results: dict[tuple[str, str], list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        stack.callback(mounting.detach_below, place)
        cluster = stack.enter_context(ceph_cluster.running(place))
        fuse = stack.enter_context(ceph_cluster.mounted(cluster, place / "fuse"))
        for name in ("direct", "over"):
            (fuse.path / name).mkdir()
        limits = ["--quota", "100G"]
        options = ["-o", f"conf={cluster.configuration},client=fs", *limits]
        direct = stack.enter_context(mounting.mounted(place, *options, name="direct", source="ceph:///direct"))
        over = stack.enter_context(mounting.mounted(place, *limits, name="over", source=str(fuse.path / "over")))
        contenders = {
            "libcephfs": ["library", cluster.configuration, "/alone-{n}"],
            "volgate ceph://": ["mount", f"{direct.path}/{{n}}"],
            "volgate over ceph-fuse": ["mount", f"{over.path}/{{n}}"],
            "ceph-fuse": ["mount", f"{fuse.path}/alone-fuse-{{n}}"],
        }
        for number in range(rounds):
            for name, words in contenders.items():
                command = ["/usr/bin/python3", OPERATIONS, *(str(word).format(n=number) for word in words)]
                said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
                for row, value in json.loads(said).items():
                    results[row, name].append(value)
                    unit = "MB/s" if row in SPEEDS else "us"
                    print(json.dumps({"name": row, "contender": name, "value": value, "unit": unit}), flush=True)
    print("| row | unit |", " | ".join(contenders), "|", file=sys.stderr)
    for row in dict.fromkeys(row for row, _ in results):
        cells = [spread(results[row, name], 0) for name in contenders]
        print("|", row, "|", "MB/s" if row in SPEEDS else "us", "|", " | ".join(cells), "|", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
