"""Several programs at random work on one mount while snapshots come and go: views stay, and usage is exact."""

import contextlib
import errno
import hashlib
import os
import random
import time

from test_snapshots_of_mounts import snapshot

import mounting
from mounting import spawn, used_of, walk_usage

SECONDS = float(os.environ.get("VOLGATE_LOAD_SECONDS", "8"))
RACES = {errno.ENOENT, errno.EEXIST, errno.EXDEV, errno.EPERM, errno.ESTALE}
"""What work on the same names by several programs may meet."""


def work(path, seed, seconds):
    """Work until the time is over; raises what no race explains."""
    chance, held, ends = random.Random(seed), [], time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            step(path, chance, held)
        except OSError as error:
            if error.errno not in RACES:
                raise
    for fd in held:
        os.close(fd)


def step(path, chance, held):
    here = path / str(chance.randrange(3)) / str(chance.randrange(20))
    there = path / str(chance.randrange(3)) / str(chance.randrange(20))
    what = chance.randrange(11)
    if what < 3:
        here.write_bytes(chance.randbytes(chance.choice([0, 10, 5000, 200_000])))
    elif what == 3:
        with open(here, "r+b") as file:
            file.seek(chance.randrange(1000))
            file.write(chance.randbytes(100))
    elif what == 4:
        here.unlink()
    elif what == 5:
        here.rename(there)
    elif what == 6:
        os.truncate(here, chance.randrange(300_000))
    elif what == 7:
        os.link(here, there)
    elif what == 8:
        held.append(os.open(here, os.O_RDWR))
    elif what == 9 and held:
        os.pwrite(chance.choice(held), chance.randbytes(50), chance.randrange(2000))
    elif what == 10 and len(held) > 5:
        os.close(held.pop(chance.randrange(len(held))))


def digest(view):
    found = {}
    for above, _, files in os.walk(view):
        for name in files:
            here = os.path.join(above, name)
            with open(here, "rb") as file:
                content = file.read()
            status = os.lstat(here)
            assert len(content) == status.st_size
            found[os.path.relpath(here, view)] = status.st_mtime_ns, hashlib.sha256(content).digest()
    return found


def test_views_stay_what_they_were_and_usage_is_exact_while_others_work(volume):
    for number in range(3):
        (volume.path / str(number)).mkdir()
    seed = random.randrange(1 << 30)
    print("seed", seed)
    workers = [spawn(work, volume.path, seed + number, SECONDS) for number in range(4)]
    chance, known, number, ends = random.Random(seed), {}, 0, time.monotonic() + SECONDS
    try:
        while time.monotonic() < ends:
            number += 1
            name = f"s{number}"
            snapshot(volume, "create", name)
            known[name] = digest(volume.path / ".snapshots" / name)
            again = chance.choice(sorted(known))
            assert digest(volume.path / ".snapshots" / again) == known[again], again
            if len(known) > 4:
                gone = chance.choice(sorted(known))
                snapshot(volume, "delete", gone)
                del known[gone]
    finally:
        for worker in workers:
            worker.result()
    for name, expected in known.items():
        assert digest(volume.path / ".snapshots" / name) == expected, name
    with contextlib.suppress(AssertionError):  # of what was closed last the kernel tells a little later
        mounting.wait_until(lambda: used_of(volume) == walk_usage(volume.backing), 5)
    assert used_of(volume) == walk_usage(volume.backing)
