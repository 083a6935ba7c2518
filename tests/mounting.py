"""Real mounts for tests: always unmounted, also stuck ones; the daemon's log is part of the verdict."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pickle
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

MOUNT = (sys.executable, "-m", "volgate", "mount")
READY_S = 60.0
STOP_S = 60.0
ALARM = re.compile(r"^<[0-4]>|\b(WARNING|ERROR|CRITICAL)\b|level=(warning|error|critical)|Traceback", re.MULTILINE)
KERNELS_FORGETS_S = 10.0


@attrs.define
class Mount:
    """A volume mounted by a daemon of its own.

    Attributes:
        backing: where its data lie, a directory or a URL. path: where users see it. log_path: what the daemon said.
    """

    backing: Path | str
    path: Path
    log_path: Path
    process: subprocess.Popen[bytes]
    checked: bool = True

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        """Return ``/v1/status`` of the daemon, without a request on the mount."""
        return request(self.volume_id(), "GET", "/v1/status")

    def metric(self, name: str) -> float:
        """Return one of the daemon's metrics."""
        line = re.search(rf"^{name}\{{.*\}} (\S+)$", _ask(self.volume_id(), "GET", "/metrics"), re.MULTILINE)
        assert line, f"no metric {name}"
        return float(line[1])

    def volume_id(self) -> str:
        entry = find_mount(self.path)
        assert entry is not None, f"{self.path} is not mounted; the daemon said:\n{self.log()}"
        return entry.source.removeprefix("volgate:")

    def requests(self) -> dict[str, int]:
        """Return how often the kernel asked for each operation."""
        counts: dict[str, int] = find_key(self.status(), "requests")
        return dict(counts)

    def statistic(self, name: str) -> int:
        return int(find_key(self.status(), name))

    def stop(self) -> int:
        """Ask the daemon to stop, as systemd does; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """End the daemon as a crash does and clear its dead mount away."""
        self.checked = False
        self.process.kill()
        self.process.wait(STOP_S)
        detach(self.path)


@attrs.frozen
class MountEntry:
    """A line of mountinfo."""

    minor: int
    path: Path
    kind: str
    source: str


def list_mounts() -> list[MountEntry]:
    entries = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        at = fields.index("-")
        path = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
        entries.append(MountEntry(int(fields[2].split(":")[1]), Path(path), fields[at + 1], fields[at + 2]))
    return entries


def find_mount(path: Path) -> MountEntry | None:
    found = [entry for entry in list_mounts() if entry.path == path]
    return found[-1] if found else None


def connections() -> Path:
    """Return where fusectl is mounted, as systemd does it."""
    path = Path("/sys/fs/fuse/connections")
    if not os.path.ismount(path):
        subprocess.run(["mount", "-t", "fusectl", "none", str(path)], check=True)
    return path


def fuse_control(minor: int, name: str) -> Path:
    """Return a file of fusectl of a connection: ``abort`` or ``waiting``."""
    return connections() / str(minor) / name


def detach(path: Path) -> None:
    """Take away what is mounted here, whoever uses it and whether or not its daemon lives."""
    while (entry := find_mount(path)) is not None:
        if entry.kind.startswith("fuse"):
            with contextlib.suppress(OSError):
                fuse_control(entry.minor, "abort").write_text("1")
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)


@contextlib.contextmanager
def loop_image(place: Path, kind: str, size: int) -> Iterator[Path]:
    """Give the root of an empty file system, ext4 or btrfs, on a sparse image, whatever this host itself has."""
    image, root = place / f"{kind}.image", place / kind
    image.touch()
    os.truncate(image, size)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, timeout=60)
    root.mkdir()
    subprocess.run(["mount", "-o", "loop", image, root], check=True, timeout=60)
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", root], check=True, timeout=60)


def detach_below(path: Path) -> None:
    for entry in reversed(list_mounts()):
        if path in entry.path.parents:
            detach(entry.path)


def request(volume_id: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    """Ask a mount's daemon over its socket."""
    answer = _ask(volume_id, method, path, body)
    return json.loads(answer) if answer else {}


def _ask(volume_id: str, method: str, path: str, body: object = None) -> str:
    connection = _UnixConnection(f"/run/volgate/{volume_id}.sock")
    try:
        text = None if body is None else json.dumps(body)
        headers = {} if text is None else {"Content-Type": "application/json"}
        connection.request(method, path, body=text, headers=headers)
        response = connection.getresponse()
        answer = response.read()
        assert response.status < 300, f"{method} {path}: {response.status} {answer!r}"
        return answer.decode()
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def find_key(document: Any, key: str) -> Any:
    """Return the first value of this key anywhere in a JSON document."""
    found = _find_key(document, key)
    assert found, f"no {key!r} in {document}"
    return found[0]


def _find_key(document: Any, key: str) -> list[Any]:
    if not isinstance(document, dict):
        return []
    if key in document:
        return [document[key]]
    return [hit for value in document.values() for hit in _find_key(value, key)]


def volgate(*arguments: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the command line; never waits longer than the timeout."""
    return subprocess.run(
        [sys.executable, "-m", "volgate", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def in_namespace(script: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a bash script in a directory and a mount namespace of its own; ``volgate`` is the command line."""
    preamble = f'set -eu; cd "{place}"; volgate() {{ timeout 60 "{sys.executable}" -m volgate "$@"; }}; '
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", preamble + script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def start(
    backing: Path | str,
    path: Path,
    *options: str,
    log_path: Path | None = None,
    command: Sequence[str] = MOUNT,
    environment: Mapping[str, str] | None = None,
) -> Mount:
    """Mount in the foreground and return when the mount answers."""
    log_path = log_path or path.with_name(path.name + ".log")
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*command, str(backing), str(path), *options],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    mount = Mount(backing, path, log_path, process)
    deadline = time.monotonic() + READY_S
    while (entry := find_mount(path)) is None or not entry.kind.startswith("fuse"):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError(f"no mount on {path}; the daemon said:\n{mount.log()}")
        time.sleep(0.01)
    os.statvfs(path)
    return mount


@contextlib.contextmanager
def mounted(
    place: Path,
    *options: str,
    name: str = "volume",
    source: str | None = None,
    command: Sequence[str] = MOUNT,
    alarms: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Mount]:
    """Mount ``place/NAME.data`` on ``place/NAME``; at the end unmount and judge the log.

    Args:
        source: a bucket to mount instead. command: what mounts.
        alarms: the test provokes warnings; else one in the log fails it.
        environment: variables of the daemon beside this process's.
    """
    path = place / name
    path.mkdir(exist_ok=True)
    backing: Path | str = source or place / f"{name}.data"
    if isinstance(backing, Path):
        backing.mkdir(exist_ok=True)
    mount = start(backing, path, *options, command=command, environment=environment)
    try:
        yield mount
    except BaseException:
        _end(mount)
        print(f"--- log of {path}\n{mount.log()}")
        raise
    if not mount.checked:
        _end(mount)
        return
    status = mount.stop() if mount.process.poll() is None else mount.process.returncode
    log = mount.log()
    left = find_mount(path)
    _end(mount)
    assert status == 0, f"the daemon ended with {status} and said:\n{log}"
    assert left is None, f"the daemon left its mount on {path} and said:\n{log}"
    assert alarms or not ALARM.search(log), f"the daemon raised an alarm:\n{log}"


def _end(mount: Mount) -> None:
    if mount.process.poll() is None:
        mount.process.send_signal(signal.SIGTERM)
        try:
            mount.process.wait(5)
        except subprocess.TimeoutExpired:
            detach(mount.path)
            mount.process.kill()
    mount.process.wait()
    detach(mount.path)


# -- other processes -----------------------------------------------------------------------------------------------


@attrs.frozen
class Child:
    """A function at work in a forked process."""

    pid: int
    answer: int

    def result(self) -> Any:
        """Wait for its end and return what the function returned, or raise what it raised."""
        with os.fdopen(self.answer, "rb") as stream:
            data = stream.read()
        os.waitpid(self.pid, 0)
        if not data:
            raise AssertionError("the child died")
        ok, value = pickle.loads(data)
        if not ok:
            raise AssertionError(f"in the child: {value}")
        return value

    def kill(self) -> None:
        """End it now; what it would have returned is lost."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.answer)


def spawn(function: Callable[..., Any], *args: Any, uid: int | None = None, gids: Sequence[int] = ()) -> Child:
    """Run a function in a forked process, as another user where asked (gids: its group, then further ones)."""
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return Child(pid, read_end)
    try:
        os.close(read_end)
        try:
            if uid is not None:
                os.setgroups(list(gids[1:]))
                os.setresgid(*[gids[0] if gids else uid] * 3)
                os.setresuid(uid, uid, uid)
            answer = (True, function(*args))
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(write_end, "wb") as stream:
            stream.write(pickle.dumps(answer))
    finally:
        os._exit(0)


def in_child(function: Callable[..., Any], *args: Any, uid: int | None = None, gids: Sequence[int] = ()) -> Any:
    """Run a function in a forked process and return its result."""
    return spawn(function, *args, uid=uid, gids=gids).result()


# -- counting ------------------------------------------------------------------------------------------------------

RESERVED = {b".volgate", b".snapshots"}


def walk_usage(backing: Path) -> tuple[int, int]:
    """Return (bytes, inodes) of the linked inodes below a backing directory, by a walk that tolerates changes."""
    seen: set[int] = set()
    total = 0
    root = os.fsencode(backing)
    pending = [root]
    while pending:
        directory = pending.pop()
        try:
            entries = list(os.scandir(directory))
        except FileNotFoundError:
            continue
        for entry in entries:
            if directory == root and entry.name in RESERVED:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            if stat.S_ISDIR(status.st_mode):
                pending.append(entry.path)
            elif stat.S_ISREG(status.st_mode):
                total += status.st_size
    return total, len(seen)


def used_of(mount: Mount) -> tuple[int, int]:
    """Return (bytes, inodes) that a mount counts."""
    status = mount.status()
    return status["used_bytes"], status["file_count"]


def wait_until(condition: Callable[[], bool], limit_s: float = KERNELS_FORGETS_S) -> None:
    """Wait for what happens by itself soon (a release or forget that the kernel sends later)."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def ended(pid: int) -> bool:
    """Return whether a process has ended, reaped by its parent or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def signal_until_it_ends(process: subprocess.Popen[bytes], *signals: int, timeout_s: float = 30) -> None:
    """Send signals again and again until a process is gone."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        assert time.monotonic() < deadline, "it does not end"
        for number in signals:
            process.send_signal(number)
        time.sleep(0.001)


def one_line(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Assert that a command failed with one clear line and this exit status; return the line."""
    assert done.returncode == status, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("volgate: "), done.stderr
    return lines[0]
