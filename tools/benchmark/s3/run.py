"""The runner behind ``tools/bench s3``: each round visits every workload with every mount in turn.

A workload begins with a bucket, a mount and a cache of its own, so that none bears what another left behind; only one
is mounted at a time. JSON lines to standard output, the tables to standard error.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs
import boto3
import psutil
from botocore.config import Config

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))
import mounts
import places
import rows
import table

import s3_server

SEED = "seed"
Report = Callable[[table.Measurement], None]


@attrs.frozen
class Site:
    """Where the cells of one network run."""

    place: Path
    network: places.Network
    server: s3_server.S3Server
    limit_s: float

    def cpu_s(self, mount: mounts.Mount) -> dict[str, float]:
        """Return what daemon, server and others took up to now."""
        times = psutil.cpu_times()
        daemon, server = mount.cpu_s(), mounts.cpu_s(psutil.Process(self.server.process.pid))
        line = mounts.cpu_s(psutil.Process(self.network.line_pid)) if self.network.line_pid else 0
        own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        busy = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
        return {"daemon_cpu_s": daemon, "server_cpu_s": server, "other_cpu_s": busy - daemon - server - line - own}


def visit(site: Site, workload: rows.Workload, name: str, command: str, number: int, report: Report) -> None:
    """Measure a workload on one mount, in a bucket of its own."""
    bucket = f"{site.network.name}-{number}-{workload.name}-{name.lower()}-{os.getpid()}"
    place = site.place / "mounts" / name
    mount = mounts.Mount(command, place, bucket, site.server.url, site.network.mounts)
    cell = rows.Cell(mount.path, site.server.data / bucket, site.place / "material")
    steps = list(workload.steps)
    site.server.make_bucket(bucket)
    try:
        for seed in workload.seed:
            subprocess.run(["cp", "-a", site.server.data / SEED / seed, cell.bucket], check=True)
        with mounts.prepared(mount):
            mount.start()
            while steps and mount.process is not None:
                get_ready(mount, steps[0].before)
                step, found = steps[0], measure(site, mount, steps[0], cell)
                del steps[0]
                for row, figure in zip(step.rows, found, strict=False):  # a preparation has no rows
                    report(table.Measurement(site.network.name, row, name, number, step.unit, **figure))
                if not step.rows and found[-1]["error"]:
                    raise mounts.MountError(f"preparation: {found[-1]['error']}")
    except mounts.MountError as error:
        print(f"bench: {site.network.name}, {workload.name}, {name}: {error}", file=sys.stderr)
        for step in steps:
            for row in step.rows:
                why = str(error).partition(":")[0]
                report(table.Measurement(site.network.name, row, name, number, step.unit, None, why))
    finally:
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(cell.bucket, ignore_errors=True)  # the server may still be at work for a mount that was killed


def get_ready(mount: mounts.Mount, before: str) -> None:
    """Do what a step has before it."""
    if before == "dropped":
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    elif before == "remounted":
        mount.stop()
        mount.start()


def measure(site: Site, mount: mounts.Mount, step: rows.Step, cell: rows.Cell) -> list[dict[str, Any]]:
    """Run a step in a child, which may hang: after the limit the mount is killed, and the child with it.

    Returns what ``Measurement`` says of the return and, where the step has it, of durability.
    """
    answers, answer = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=perform, args=(step, cell, answer))
    mount.forget_peak()
    before, started = site.cpu_s(mount), time.monotonic()
    child.start()
    answer.close()
    error = "T"
    try:
        values, error = collect(answers, step.figures, started + site.limit_s)
        facts: dict[str, Any] = {"elapsed_s": time.monotonic() - started, "peak_rss_bytes": mount.peak_rss_bytes()}
        facts |= {who: after - before[who] for who, after in site.cpu_s(mount).items()}
    finally:
        if error == "T":
            mount.kill()
            child.kill()
        child.join()
    known = [{"value": value, "error": "", **facts} for value in values]
    return known + [{"value": None, "error": error, **facts}] * (step.figures - len(values))


def collect(answers: Connection, count: int, deadline: float) -> tuple[list[float], str]:
    """Return the values that came, and why the others did not."""
    values: list[float] = []
    while len(values) < count:
        if not answers.poll(max(deadline - time.monotonic(), 0)):
            return values, "T"
        try:
            value, error = answers.recv()
        except EOFError:
            return values, "died"
        if error:
            return values, error
        values.append(value)
    return values, ""


def perform(step: rows.Step, cell: rows.Cell, answer: Connection) -> None:
    """Do a step's work and send (value, error), once at its return and once when its objects stand."""
    try:
        os.statvfs(cell.mount)
        started = time.perf_counter()
        amount = step.run(cell)
        answer.send((_value(step, amount, started), ""))
        if step.durable:
            while True:
                looked = time.perf_counter()
                if all(step.durable(cell)):
                    break
                time.sleep(max(0.01, 4 * (time.perf_counter() - looked)))
            answer.send((_value(step, amount, started), ""))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the cell's answer
        answer.send((0, _said(error)))


def _value(step: rows.Step, amount: float, started: float) -> float:
    seconds = time.perf_counter() - started
    return seconds if step.unit == "s" else amount / seconds


def _said(error: Exception) -> str:
    """Name an error within a cell's width."""
    if isinstance(error, OSError) and error.errno:
        return errno.errorcode.get(error.errno, str(error.errno))
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.strip().splitlines() or [""]
        return f"rc {error.returncode} {lines[-1]}"[:60].replace("|", "/")
    return repr(error)[:60].replace("|", "/")


def seed_bucket(data: Path, seeds: set[str]) -> None:
    """Put the objects that are read into a bucket, as any S3 client does."""
    with s3_server.running(data) as server:
        server.make_bucket(SEED)
        client = boto3.client(
            "s3", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id=s3_server.ACCESS_KEY,
            aws_secret_access_key=s3_server.SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=16),
        )  # fmt: skip
        with tempfile.TemporaryFile() as big, ThreadPoolExecutor(16) as pool:
            small = []
            for name, size in (file for seed in sorted(seeds) for file in rows.seed_files(seed)):
                if size <= rows.MIB:
                    small.append((name, rows.NOISE[:size]))
                    continue
                big.seek(0)
                big.truncate(0)
                for _ in range(size // rows.MIB):
                    big.write(rows.NOISE)
                big.seek(0)
                client.upload_fileobj(big, SEED, name)
            list(pool.map(lambda file: client.put_object(Bucket=SEED, Key=file[0], Body=file[1]), small))


def run(arguments: argparse.Namespace) -> list[table.Measurement]:
    """Measure everything; each figure is printed when it is known."""
    workloads = rows.select(arguments.rows)
    commands = {name: mounts.COMMANDS[name] for name in arguments.mounts} | dict(arguments.peer)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    marks = {"commit": commit.stdout.strip(), "date": time.strftime("%F")}
    measured: list[table.Measurement] = []

    def report(found: table.Measurement) -> None:
        measured.append(found)
        print(json.dumps(attrs.asdict(found) | marks), flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="volgate-bench-", dir="/var/tmp") as place,
        tempfile.TemporaryDirectory(prefix="volgate-bench-", dir=arguments.data) as data,
    ):
        rows.make_material(Path(place) / "material")
        seed_bucket(Path(data) / "s3", {seed for workload in workloads for seed in workload.seed})
        for name in arguments.net:
            with (
                places.NETWORKS[name]() as network,
                s3_server.running(Path(data) / "s3", address=network.address, prefix=network.server) as server,
            ):
                site = Site(Path(place), network, server, arguments.limit)
                order = list(commands)
                for number in range(arguments.rounds):
                    for workload, mount in itertools.product(workloads, order):
                        visit(site, workload, mount, commands[mount], number, report)
                    order.append(order.pop(0))
    return measured


def peer(text: str) -> tuple[str, str]:
    name, found, command = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("write NAME=COMMAND")
    return name, command


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench s3", description=__doc__)
    parser.add_argument("--rows", type=lambda text: text.split(","), default=[], help="rows or workloads [all]")
    parser.add_argument("--net", choices=["loop", "cloud", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mounts", type=lambda text: text.split(","), default=list(mounts.COMMANDS))
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=COMMAND",
                        help="stays in the foreground; {bucket} {url} {mount} {cache} are filled in")  # fmt: skip
    parser.add_argument("--data", type=Path, default=Path("/dev/shm"), help="where the server keeps its data")
    parser.add_argument("--limit", type=float, default=180, metavar="SECONDS", help="of one step; then it is 'T'")
    arguments = parser.parse_args()
    arguments.net = list(places.NETWORKS) if arguments.net == "both" else [arguments.net]
    if unknown := set(arguments.mounts) - set(mounts.COMMANDS):
        parser.error(f"no command for {', '.join(unknown)}; use --peer")
    if os.geteuid():
        parser.error("needs root: it drops the kernel's caches")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    print(*table.tables(run(arguments)), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
