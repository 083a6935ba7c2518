"""The file systems that are compared, and one of them mounted: started, measured, ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import psutil

import mounting
import s3_server

READY_S, STOP_S = 60, 30

COMMANDS = {
    "volgate": f"{Path(sys.executable).with_name('volgate')} mount s3://{{bucket}} {{mount}} --endpoint-url {{url}}"
    " --quota 100GiB -o cache_dir={cache}",
    "s3fs": "s3fs {bucket} {mount} -f -o url={url} -o use_path_request_style -o use_cache={cache} -o parallel_count=16"
    " -o multipart_size=16 -o multireq_max=64 -o max_stat_cache_size=200000 -o enable_noobj_cache -o kernel_cache"
    " -o sigv4 -o endpoint=us-east-1",
    "rclone": "rclone mount :s3:{bucket} {mount} --config /dev/null --s3-provider Other --s3-endpoint {url}"
    " --s3-region us-east-1 --vfs-cache-mode full --cache-dir {cache} --vfs-read-chunk-size 4M"
    " --s3-upload-concurrency 16 --s3-chunk-size 16M --transfers 16 --use-server-modtime --vfs-fast-fingerprint"
    " --vfs-write-back 1s --dir-cache-time 5m",
}
"""Each stays in the foreground and takes the key from the environment."""

# Of the host's own settings for S3 and proxies nothing (rclone does not even start where AWS_CA_BUNDLE is set).
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not re.match(r"AWS_|.*_proxy$", name, re.IGNORECASE)},
    "AWS_ACCESS_KEY_ID": s3_server.ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": s3_server.SECRET_KEY,
    "RCLONE_S3_ACCESS_KEY_ID": s3_server.ACCESS_KEY,
    "RCLONE_S3_SECRET_ACCESS_KEY": s3_server.SECRET_KEY,
}


class MountError(Exception):
    """It did not mount, or did not end as it should; or it did not do what a workload begins with."""


@attrs.define
class Mount:
    """A mounted bucket. Attributes: place: has the mount point, the cache and the log."""

    command: str
    place: Path
    bucket: str
    url: str
    prefix: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        return self.place / "mnt"

    def start(self) -> None:
        """Mount. Raises MountError."""
        (self.place / "cache").mkdir(parents=True, exist_ok=True)
        self.path.mkdir(exist_ok=True)
        line = self.command.format(bucket=self.bucket, url=self.url, mount=self.path, cache=self.place / "cache")
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *shlex.split(line)],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_S
        while mounting.find_mount(self.path) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.place / "log").read_text(errors="replace").strip().splitlines() or ["nothing"]
                raise MountError(f"no mount: {said[-1]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Unmount and wait for the end of the daemon. Raises MountError."""
        if self.process is None:
            return
        try:
            subprocess.run(["umount", self.path], check=True, timeout=STOP_S)
            self._wait()
        except subprocess.CalledProcessError as error:
            raise MountError(f"umount says {error.returncode}") from error
        except subprocess.TimeoutExpired as error:
            where = "unmounted" if mounting.find_mount(self.path) is None else "mounted"
            raise MountError(f"{where}, but not at its end after {STOP_S} s") from error
        self.process = None

    def _wait(self) -> None:
        """Wait for the daemon's end; one that another mount namespace's copy of the mount keeps is asked to go."""
        if self.process is None:
            return
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait(STOP_S)

    def kill(self) -> None:
        """End it now, and all that waits for it."""
        mounting.detach(self.path)
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def cpu_s(self) -> float:
        return sum(cpu_s(process) for process in self._processes())

    def forget_peak(self) -> None:
        """Begin to look for the peak of memory anew (proc_pid_clear_refs)."""
        for process in self._processes():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def peak_rss_bytes(self) -> int:
        """Return the sum over its processes of the most that each had."""
        return sum(_peak_rss_bytes(process.pid) for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextlib.contextmanager
def prepared(mount: Mount) -> Iterator[Mount]:
    """Give a mount that is not yet started; unmount it in the end."""
    try:
        yield mount
        mount.stop()
    finally:
        mount.kill()


def cpu_s(process: psutil.Process) -> float:
    """Return what a process and those it waited for took."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return sum(process.cpu_times()[:4])
    return 0


def _peak_rss_bytes(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0
