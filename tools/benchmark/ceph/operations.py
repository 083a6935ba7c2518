"""What operations cost, by system calls on a mount or by libcephfs itself: one JSON object {row: value}.

Run by Debian's Python, which has the library's binding. Usage: operations.py mount DIR | library CONF DIR
Microseconds an operation of N files in a new directory, but for seqwrite and seqread, MB/s (10^6) of 64 MiB.
"""

import json
import os
import sys
import time

FILES, BLOCK, LARGE = 200, os.urandom(4096), 64 << 20
CHUNK = os.urandom(1 << 20)


class Mount:
    """System calls."""

    mkdir, unlink, stat, close = (
        staticmethod(os.mkdir),
        staticmethod(os.unlink),
        staticmethod(os.stat),
        staticmethod(os.close),
    )
    fsync, names = staticmethod(os.fsync), staticmethod(os.listdir)

    def open(self, path, flags):
        return os.open(path, flags, 0o644)

    def write(self, fd, data, offset):
        os.pwrite(fd, data, offset)

    def read(self, fd, offset, length):
        return os.pread(fd, length, offset)


class Library:
    """libcephfs's calls by path."""

    def __init__(self, conf):
        import cephfs

        self.fs = cephfs.LibCephFS(conffile=conf, auth_id="fs")
        self.fs.mount(filesystem_name=b"cephfs")
        self.stat, self.unlink, self.close = self.fs.stat, self.fs.unlink, self.fs.close

    def mkdir(self, path):
        self.fs.mkdir(path, 0o755)

    def open(self, path, flags):
        return self.fs.open(path, flags, 0o644)

    def write(self, fd, data, offset):
        self.fs.write(fd, data, offset)

    def read(self, fd, offset, length):
        return self.fs.read(fd, offset, length)

    def fsync(self, fd):
        self.fs.fsync(fd, 0)

    def names(self, path):
        directory, found = self.fs.opendir(path), []
        while entry := self.fs.readdir(directory):
            found.append(entry.d_name)
        self.fs.closedir(directory)
        return found


def measure(calls, place):
    """Return all rows."""
    rows = {}
    calls.mkdir(place)
    paths = [f"{place}/f{number}" for number in range(FILES)]

    def timed(row, act):
        started = time.perf_counter()
        for path in paths:
            act(path)
        rows[row] = (time.perf_counter() - started) / FILES * 1e6

    def touch(path):
        calls.close(calls.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def store(path, *, sync):
        fd = calls.open(path, os.O_CREAT | os.O_WRONLY)
        calls.write(fd, BLOCK, 0)
        if sync:
            calls.fsync(fd)
        calls.close(fd)

    def load(path):
        fd = calls.open(path, os.O_RDONLY)
        assert len(calls.read(fd, 0, 8192)) == 4096
        calls.close(fd)

    timed("create", touch)
    timed("write-4k", lambda path: store(path, sync=False))
    timed("write-4k-fsync", lambda path: store(path, sync=True))
    timed("stat", calls.stat)
    timed("read-4k", load)
    started = time.perf_counter()
    assert len([name for name in calls.names(place) if name not in (b".", b"..", ".", "..")]) == FILES
    rows["readdir-entry"] = (time.perf_counter() - started) / FILES * 1e6
    timed("unlink", calls.unlink)
    fd = calls.open(f"{place}/large", os.O_CREAT | os.O_RDWR)
    started = time.perf_counter()
    for offset in range(0, LARGE, len(CHUNK)):
        calls.write(fd, CHUNK, offset)
    calls.fsync(fd)
    rows["seqwrite"] = LARGE / (time.perf_counter() - started) / 1e6
    started = time.perf_counter()
    for offset in range(0, LARGE, len(CHUNK)):
        calls.read(fd, offset, len(CHUNK))
    rows["seqread"] = LARGE / (time.perf_counter() - started) / 1e6
    calls.close(fd)
    calls.unlink(f"{place}/large")
    return rows


if __name__ == "__main__":
    way, *where = sys.argv[1:]
    print(json.dumps(measure(Mount() if way == "mount" else Library(where[0]), where[-1])))
