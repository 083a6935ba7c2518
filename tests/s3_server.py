"""A real S3 server for tests: versitygw on a directory."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

import mounting
import programs

ACCESS_KEY, SECRET_KEY = "volgate-test", "a-secret-of-tests"


@attrs.frozen
class S3Server:
    """A server that runs. Attributes: url; data: the directory that has each bucket as a directory."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 and volgate take the server and its key from."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }  # fmt: skip

    def make_bucket(self, name: str) -> None:
        (self.data / name).mkdir()


@contextlib.contextmanager
def running(
    data: Path,
    port: int = 0,
    certificate: tuple[Path, Path] | None = None,
    address: str = "127.0.0.1",
    prefix: Sequence[str] = (),
) -> Iterator[S3Server]:
    """Serve a directory on the loopback; over TLS where a certificate and its key are given.

    Args:
        prefix: what enters the network namespace that has the address, and then runs the command behind it.
    """
    data.mkdir(exist_ok=True)
    if not port:
        with socket.socket() as found:
            found.bind(("", 0))
            port = found.getsockname()[1]
    with data.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [
                *prefix, programs.program("versitygw"),
                "--port", f"{address}:{port}", "--region", "us-east-1", "--keep-alive", "--quiet",
                *(["--cert", str(certificate[0]), "--key", str(certificate[1])] if certificate else []),
                "posix", str(data),
            ],
            env={**os.environ, "ROOT_ACCESS_KEY_ID": ACCESS_KEY, "ROOT_SECRET_ACCESS_KEY": SECRET_KEY},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while process.poll() is None and not _listens(process.pid, port):
            assert time.monotonic() < deadline, data.with_suffix(".log").read_text()
            time.sleep(0.01)
        assert process.poll() is None, data.with_suffix(".log").read_text()
        yield S3Server(f"http://{address}:{port}", data, process)
    finally:
        process.terminate()
        process.wait(20)


def _listens(pid: int, port: int) -> bool:
    """Look at the sockets of the process's own network namespace (proc_net_tcp: 0A is LISTEN)."""
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@contextlib.contextmanager
def mounted(
    server: S3Server,
    bucket: str,
    place: Path,
    *options: str,
    name: str = "volume",
    alarms: bool = False,
    command: Sequence[str] = mounting.MOUNT,
) -> Iterator[mounting.Mount]:
    """Mount ``BUCKET[/PREFIX]`` on ``place/NAME``, with a cache of its own in ``place/NAME.cache``."""
    with mounting.mounted(
        place, "--endpoint-url", server.url, "-o", f"cache_dir={place / name}.cache,cache_free=1M", *options,
        name=name, source=f"s3://{bucket}", command=command, alarms=alarms, environment=server.environment,
    ) as mount:  # fmt: skip
        yield mount
