"""A mounted bucket behind a network that fails: bounded errors, nothing acknowledged lost, healed without a remount."""

import os
import random
import time

import pytest

import mounting
import s3_server
import toxiproxy
from mounting import volgate, wait_until

BOUND_S = 75
"""The longest that a call may take while nothing answers: a request's 30 s, and that of who waits for it."""
CONTENT = random.Random(1).randbytes(3 << 20)
ONE, TWO = CONTENT[: 1 << 20], CONTENT[::-1]


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as running:
        yield running


@pytest.fixture
def line(server):
    with toxiproxy.before(server.url) as line:
        yield line


@pytest.fixture
def bucket(server, request):
    name = f"b{abs(hash(request.node.name)) % 10**8}"
    server.make_bucket(name)
    return server.data / name


@pytest.fixture
def mount(server, line, bucket, place):
    (bucket / "cold").write_bytes(CONTENT)
    (bucket / "warm").write_bytes(ONE)
    behind = s3_server.S3Server(line.url, server.data, server.process)
    with s3_server.mounted(behind, bucket.name, place, alarms=True) as mount:
        assert (mount.path / "warm").read_bytes() == ONE
        yield mount
        heal(line, mount)


def heal(line, mount):
    """Take the faults away; all is stored as soon as the lease is renewed, which is tried every ten seconds."""
    line.heal()
    wait_until(lambda: volgate("flush", mount.path, timeout_s=120).returncode == 0, 40)


def fail(line, how):
    """Let the network fail in a way in which nothing gets through."""
    if how == "down":
        line.cut()
    elif how == "timeout":
        line.add("timeout", timeout=0)
    else:
        line.add("reset_peer", timeout=0)


def fsync(path, content):
    """Write a file and wait for the bucket; returns how long that took, and the errno, 0 where all went well."""
    began, error_number = time.monotonic(), 0
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
    except OSError as error:
        error_number = error.errno
    return time.monotonic() - began, error_number


@pytest.mark.parametrize("how", ["down", "timeout", "reset"])
def test_while_nothing_gets_through_calls_fail_in_time_and_all_comes_right_after_it(mount, line, bucket, how):
    fail(line, how)
    (mount.path / "closed").write_bytes(ONE)
    os.rename(mount.path / "warm", mount.path / "renamed")
    assert (mount.path / "renamed").read_bytes() == ONE
    assert (mount.path / "closed").read_bytes() == ONE
    began = time.monotonic()
    with pytest.raises(OSError):
        (mount.path / "cold").read_bytes()
    assert time.monotonic() - began < BOUND_S
    took, error_number = fsync(mount.path / "synced", TWO)
    assert error_number and took < BOUND_S
    wait_until(lambda: mount.status()["storage"]["last_error"], 60)
    assert "backlog   " in volgate("status", mount.path).stdout
    heal(line, mount)
    assert fsync(mount.path / "synced", TWO)[1] == 0
    assert (mount.path / "cold").read_bytes() == CONTENT
    assert {path.name: path.read_bytes() for path in bucket.iterdir() if path.is_file()} == {
        "closed": ONE, "renamed": ONE, "synced": TWO, "cold": CONTENT,
    }  # fmt: skip
    assert mounting.used_of(mount) == (2 * len(ONE) + 2 * len(CONTENT), 4)
    assert volgate("quota", "check", mount.path).returncode == 0


def test_a_body_that_always_ends_too_early_is_an_error_in_time_and_is_read_once_it_does_not(mount, line):
    line.add("limit_data", bytes=100_000)
    line.cut()  # the connections there are
    line.cut(down=False)
    began = time.monotonic()
    with pytest.raises(OSError):
        (mount.path / "cold").read_bytes()
    assert time.monotonic() - began < BOUND_S
    line.heal()
    assert (mount.path / "cold").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("latency", {"latency": 200, "jitter": 100}),
        ("bandwidth", {"rate": 1000}),
        ("slicer", {"average_size": 500, "size_variation": 400, "delay": 10}),
        ("limit_data", {"bytes": 10 << 20}),
    ],
)
@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_a_slow_or_broken_line_changes_nothing_but_the_time(mount, line, bucket, kind, attributes, stream):
    line.add(kind, stream=stream, **attributes)
    assert (mount.path / "cold").read_bytes() == CONTENT
    assert fsync(mount.path / "synced", TWO)[1] == 0
    assert (bucket / "synced").read_bytes() == TWO
    large = CONTENT * 4
    (mount.path / "large").write_bytes(large)
    assert volgate("flush", mount.path, timeout_s=200).returncode == 0
    assert (bucket / "large").read_bytes() == large
    os.unlink(mount.path / "cold")
    assert volgate("flush", mount.path, timeout_s=100).returncode == 0
    assert not (bucket / "cold").exists()


def test_connections_that_are_reset_again_and_again_lose_nothing(mount, line, bucket):
    contents = {f"f{number}": CONTENT[number * 1000 :] for number in range(12)}
    for name, content in contents.items():
        (mount.path / name).write_bytes(content)
        line.add("reset_peer", timeout=20)
        time.sleep(0.1)
        line.heal()
    assert volgate("flush", mount.path, timeout_s=120).returncode == 0
    assert {name: (bucket / name).read_bytes() for name in contents} == contents
