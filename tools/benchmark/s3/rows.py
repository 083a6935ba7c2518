"""What is measured: workloads of steps, each step one or two rows of the table. README.md says it in words.

The functions run in a child process of the bench, with nothing but the paths they are given.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
FILE_BYTES = 16 * KIB
APPENDS = 50
PAGE = os.urandom(4 * KIB)
NOISE = os.urandom(MIB)


@attrs.frozen
class Cell:
    """Where a step works. Attributes: mount: as the user sees it. bucket: the directory the server keeps it in."""

    mount: Path
    bucket: Path
    material: Path


Run = Callable[[Cell], float]
"""Does the work; returns how much of the row's unit it was (1 for a row in seconds)."""

Remaining = Callable[[Cell], Iterator[bool]]
"""One item for each thing that must stand in the bucket: whether it does."""


@attrs.frozen
class Step:
    """Attributes:
    row: its name in the table, or None for preparation.
    unit: "s", or an amount a second.
    durable: what must stand in the bucket for the row's "-durable" figure, and before the next step.
    before: "dropped" (kernel caches) or "remounted" (with the disk cache it has).
    """

    row: str | None
    run: Run
    unit: str = "s"
    durable: Remaining | None = None
    before: str = ""

    @property
    def figures(self) -> int:
        """How many it has: one at its return, one when it is durable."""
        return 2 if self.durable else 1

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of its figures."""
        return (self.row, f"{self.row}-durable")[: self.figures] if self.row else ()


@attrs.frozen
class Workload:
    """Steps on one bucket; it begins with a new mount that has no cache. Attributes: seed: what the bucket has."""

    name: str
    steps: tuple[Step, ...]
    seed: tuple[str, ...] = ()


# -- the steps ------------------------------------------------------------------------------------------------------


def write_big(size: int, name: str) -> Run:
    def run(cell: Cell) -> float:
        with open(cell.mount / name, "wb", buffering=0) as file:
            for _ in range(size // MIB):
                file.write(NOISE)
            os.fsync(file.fileno())
        return size / 1e6

    return run


def create_files(directory: str, count: int, size: int) -> Run:
    def run(cell: Cell) -> float:
        (cell.mount / directory).mkdir()
        for number in range(count):
            with open(cell.mount / directory / f"f{number}", "wb", buffering=0) as file:
                file.write(NOISE[:size])
        return count

    return run


def append(cell: Cell) -> float:
    for _ in range(APPENDS):
        with open(cell.mount / "log", "ab", buffering=0) as file:
            file.write(PAGE)
    return APPENDS


def overwrite(cell: Cell) -> float:
    with open(cell.mount / "hundred", "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), PAGE, 50 * MIB)
        os.fsync(file.fileno())
    return 1


def is_overwritten(cell: Cell) -> Iterator[bool]:
    with open(cell.bucket / "hundred", "rb") as file:
        file.seek(50 * MIB)
        yield file.read(len(PAGE)) == PAGE


def rename(old: str, new: str) -> Run:
    def run(cell: Cell) -> float:
        os.rename(cell.mount / old, cell.mount / new)
        return 1

    return run


def stat_missing(cell: Cell) -> float:
    def stat(number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(cell.mount / "small" / f"missing{number}")

    return _until(15, itertools.count(), stat)


def untar(cell: Cell) -> float:
    (cell.mount / "tree").mkdir()
    _command("tar", "-C", cell.mount / "tree", "-xf", cell.material / "tree.tar")
    return 2000


def untarred(cell: Cell) -> Iterator[bool]:
    for number in range(2000):
        yield _has(cell.bucket / "tree" / f"d{number % 50}" / f"f{number}", 1000 + number)


def rm_rf(cell: Cell) -> float:
    _command("rm", "-rf", cell.mount / "tree")
    return 2000


def removed(directory: str) -> Remaining:
    def remaining(cell: Cell) -> Iterator[bool]:
        for _, _, files in os.walk(cell.bucket / directory):
            yield not files

    return remaining


def git_clone(cell: Cell) -> float:
    _command("git", "clone", "-q", f"file://{cell.material}/repository", cell.mount / "clone")
    return 1


def read_big(cell: Cell) -> float:
    return _read(cell.mount / "big", GIB) / 1e6


def first_mib(name: str) -> Run:
    return lambda cell: _read(cell.mount / name, MIB) / MIB


def read_randomly(size: int) -> Run:
    places = random.Random(0).sample(range(0, GIB, size), GIB // size)

    def run(cell: Cell) -> float:
        with open(cell.mount / "big", "rb", buffering=0) as file:
            return _until(10, places, lambda place: os.pread(file.fileno(), size, place))

    return run


def read_files(cell: Cell) -> float:
    for number in range(500):
        _read(cell.mount / "small" / f"f{number}", FILE_BYTES)
    return 500


def run_quietly(*command: str) -> Run:
    def run(cell: Cell) -> float:
        _command(*command, directory=cell.mount)
        return 1

    return run


def stand(names: Callable[[], Iterator[str]], size: int, gone: str = "") -> Remaining:
    """Wait for objects of this size, and for the end of all that was under ``gone``."""

    def remaining(cell: Cell) -> Iterator[bool]:
        for name in names():
            yield _has(cell.bucket / name, size)
        if gone:
            yield not (cell.bucket / gone).is_file()
            yield from removed(gone)(cell)

    return remaining


def one(name: str) -> Callable[[], Iterator[str]]:
    return lambda: iter([name])


def many(directory: str, count: int) -> Callable[[], Iterator[str]]:
    return lambda: (f"{directory}/f{number}" for number in range(count))


def _command(*command: str | Path, directory: Path | None = None) -> None:
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    subprocess.run(command, cwd=directory, **streams, text=True, errors="replace", check=True)


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _read(path: Path, size: int) -> int:
    """Read that much from the start, 1 MiB a call."""
    done = 0
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        while done < size and (count := file.readinto(buffer)):
            done += count
    if done < size:
        raise EOFError(f"{path.name} ended at {done}")
    return done


def _until(limit_s: float, items: Iterable[int], call: Callable[[int], object]) -> float:
    """Call with one after the other, for at most so long; return how often."""
    deadline = time.monotonic() + limit_s
    done = 0
    for item in items:
        call(item)
        done += 1
        if time.monotonic() > deadline:
            break
    return done


# -- the table ------------------------------------------------------------------------------------------------------

WORKLOADS = (
    Workload("seqwrite-1g", (Step("seqwrite-1g", write_big(GIB, "big"), "MB/s", stand(one("big"), GIB)),)),
    Workload(
        "create-500x16k",
        (
            Step(
                "create-500x16k",
                create_files("new", 500, FILE_BYTES),
                "ops/s",
                stand(many("new", 500), FILE_BYTES),
            ),
        ),
    ),
    Workload("append-4k", (Step("append-4k", append, "ops/s", stand(one("log"), APPENDS * len(PAGE))),)),
    Workload(
        "change-100m",
        (
            Step(None, write_big(100 * MIB, "hundred"), durable=stand(one("hundred"), 100 * MIB)),
            Step("overwrite-4k-in-100m", overwrite, "s", is_overwritten),
            Step("rename-100m", rename("hundred", "moved"), "s", stand(one("moved"), 100 * MIB, gone="hundred")),
        ),
    ),
    Workload(
        "rename-dir200",
        (
            Step(None, create_files("old", 200, 4 * KIB), durable=stand(many("old", 200), 4 * KIB)),
            Step("rename-dir200", rename("old", "new"), "s", stand(many("new", 200), 4 * KIB, gone="old")),
        ),
    ),
    Workload("stat-missing", (Step("stat-missing", stat_missing, "ops/s"),), seed=("small",)),
    Workload(
        "untar-2k",
        (Step("untar-2k", untar, "files/s", untarred), Step("rm-rf", rm_rf, "files/s", removed("tree"))),
    ),
    Workload("git-clone", (Step("git-clone", git_clone),)),
    Workload(
        "first-mib",
        (Step("first-mib", first_mib("big")), Step("first-mib-warm", first_mib("hundred"))),
        seed=("big", "hundred"),
    ),
    Workload(
        "seqread",
        (
            Step("seqread-cold", read_big, "MB/s"),
            Step("seqread-again", read_big, "MB/s"),
            Step("seqread-dropped", read_big, "MB/s", before="dropped"),
            Step("seqread-remount", read_big, "MB/s", before="remounted"),
        ),
        seed=("big",),
    ),
    Workload("randread-4k", (Step("randread-4k", read_randomly(4 * KIB), "iops"),), seed=("big",)),
    Workload("randread-128k", (Step("randread-128k", read_randomly(128 * KIB), "iops"),), seed=("big",)),
    Workload("read-500x16k", (Step("read-500x16k", read_files, "ops/s"),), seed=("small",)),
    Workload(
        "ls-l-5000",
        (
            Step("ls-l-5000-cold", run_quietly("ls", "-l", "flat")),
            Step("ls-l-5000-warm", run_quietly("ls", "-l", "flat")),
        ),
        seed=("flat",),
    ),
    Workload(
        "find-5000",
        (
            Step("find-5000-cold", run_quietly("find", "deep", "-type", "f")),
            Step("find-5000-warm", run_quietly("find", "deep", "-type", "f")),
        ),
        seed=("deep",),
    ),
)


def select(wanted: list[str]) -> list[Workload]:
    """Return the workloads that have these rows, or that are named; all where none is."""
    known = {row: workload for workload in WORKLOADS for step in workload.steps for row in (workload.name, *step.rows)}
    if unknown := [row for row in wanted if row not in known]:
        raise SystemExit(f"bench: no row {', '.join(unknown)}; there are {', '.join(known)}")
    return [workload for workload in WORKLOADS if not wanted or workload in [known[row] for row in wanted]]


# -- what the rows need ---------------------------------------------------------------------------------------------


def seed_files(seed: str) -> Iterator[tuple[str, int]]:
    """Return the names and sizes of a seed's objects."""
    if seed == "big":
        yield "big", GIB
    elif seed == "hundred":
        yield "hundred", 100 * MIB
    elif seed == "small":
        yield from ((f"small/f{number}", FILE_BYTES) for number in range(500))
    elif seed == "flat":
        yield from ((f"flat/f{number}", 100 + number) for number in range(5000))
    elif seed == "deep":
        yield from ((f"deep/d{number % 50}/f{number}", 100 + number) for number in range(5000))


def make_material(place: Path) -> None:
    """Make the archive and the repository."""
    place.mkdir()
    tree = place / "tree"
    for number in range(2000):
        file = tree / f"d{number % 50}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(1000 + number))
    with tarfile.open(place / "tree.tar", "w") as archive:
        for directory in sorted(tree.iterdir()):
            archive.add(directory, directory.name)
    git = ["git", "-C", str(place / "repository"), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0"]
    (place / "repository").mkdir()
    subprocess.run([*git, "init", "-q"], check=True)
    for number in range(100):
        file = place / "repository" / f"d{number % 10}" / f"f{number}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(os.urandom(4000))
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
