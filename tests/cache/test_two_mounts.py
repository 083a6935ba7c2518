"""Two daemons on two hosts, each with a network of its own, and one bucket."""

import contextlib
import os
import sys

import pytest

import mounting
import s3_server
from networks import two_networks


def on_host(network, name):
    """Return the command that mounts on another host: with a network and a name of its own."""
    return (
        "nsenter", f"--net=/run/netns/{network}", "unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh",
        sys.executable, "-m", "volgate", "mount",
    )  # fmt: skip


@pytest.fixture
def hosts(place):
    """Return what mounts a bucket on host "ann" or "bob"."""
    with contextlib.ExitStack() as undo:
        address, names = undo.enter_context(two_networks())
        server = undo.enter_context(s3_server.running(place / "s3", address=address))
        server.make_bucket("bucket")

        def mount(host, *options, name=None):
            command = on_host(names[("ann", "bob").index(host)], host)
            return s3_server.mounted(
                server, "bucket/volume", place, *options, name=name or host, alarms=True, command=command
            )

        yield mount


@pytest.mark.timeout(180)
def test_one_host_writes_others_read_beside_it_and_take_over_without_a_recount(hosts):
    with hosts("ann", "--quota", "1GiB") as ann:
        (ann.path / "d").mkdir()
        (ann.path / "d/f").write_bytes(b"x" * 1000)
        with open(ann.path / "d/f", "ab") as file:
            os.fsync(file.fileno())

        with pytest.raises(AssertionError, match=r"in use at .*/ann by process \d+ on host ann since"), hosts("bob"):
            pass

        with hosts("bob", "--read-only", "--attr-timeout", "0s", name="reader") as reader:
            assert (reader.path / "d/f").read_bytes() == b"x" * 1000
            with pytest.raises(OSError, match="Read-only"):
                (reader.path / "new").touch()
            with open(ann.path / "d/f", "wb") as file:
                file.write(b"second")
                file.flush()
                os.fsync(file.fileno())
            assert (reader.path / "d/f").read_bytes() == b"second"
            (ann.path / "d/g").write_bytes(b"y" * 500)
            with open(ann.path / "d/g", "ab") as file:
                os.fsync(file.fileno())
            assert sorted(os.listdir(reader.path / "d")) == ["f", "g"]

    with hosts("bob") as bob:
        assert mounting.used_of(bob) == (506, 3)
        assert "counted" not in bob.log(), bob.log()
        assert (bob.path / "d/g").read_bytes() == b"y" * 500
        (bob.path / "d/g").unlink()
    with hosts("ann") as ann:
        assert mounting.used_of(ann) == (6, 2)
        assert ann.log().count(" counted ") == 1, "at the first mount only"
        assert os.listdir(ann.path / "d") == ["f"]
