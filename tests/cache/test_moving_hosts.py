"""A volume in a bucket moves from one host to another: given up with all it has, or taken from a host that died."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mounting
import s3_server
from mounting import volgate, wait_until
from networks import two_networks
from volgate.cli.mounts import find
from volgate.control.client import ask
from volgate.errors import NotFound

PIECE = bytes(range(256)) * 400


class Host:
    """A host: with a network, a name and a cache of its own; its daemons are detached."""

    def __init__(self, network, name, server, place):
        self.enter = (
            "nsenter", f"--net=/run/netns/{network}", "unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"',
            "sh", sys.executable, "-m", "volgate",
        )  # fmt: skip
        self.options = ("--endpoint-url", server.url, "-o", f"cache_dir={place / name}.cache,cache_free=1M")
        self.environment = {**os.environ, **server.environment}
        self.path = place / name
        self.path.mkdir()

    def try_(self, *words):
        return subprocess.run(
            [*self.enter, *map(str, words), *self.options, "-d"],
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def mount(self, *options):
        done = self.try_("mount", "s3://bucket/volume", self.path, *options)
        assert done.returncode == 0, done
        return find(str(self.path))

    def serve(self, *options):
        done = self.try_("serve", "s3://bucket/volume", *options)
        assert done.returncode == 0, done
        return find("s3://bucket/volume")

    def kill(self, status):
        os.kill(status["pid"], signal.SIGKILL)
        mounting.detach(self.path)


class Container(Host):
    """A host whose cache has the same path as every other's, and the same boot, and is gone with its daemon."""

    def __init__(self, network, name, server, place):
        super().__init__(network, name, server, place)
        cache = place / "cache"
        cache.mkdir(exist_ok=True)
        self.enter = (
            "nsenter", f"--net=/run/netns/{network}", "unshare", "--uts", "--mount", "sh", "-c",
            f'hostname {name}; mount -t tmpfs none {cache}; exec "$@"', "sh", sys.executable, "-m", "volgate",
        )  # fmt: skip
        self.options = ("--endpoint-url", server.url, "-o", f"cache_dir={cache},cache_free=1M")

    def mount(self, *options):
        """Return its status; what it sees lies below ``seen`` from now on."""
        status = super().mount(*options)
        self.seen = Path(f"/proc/{status['pid']}/root{self.path}")
        return status


@pytest.fixture
def hosts(place):
    """Return two hosts that both reach a server, and where the volume lies."""
    with running_hosts(place, Host) as found:
        yield found


@contextlib.contextmanager
def running_hosts(place, kind):
    with contextlib.ExitStack() as undo:
        address, networks = undo.enter_context(two_networks())
        server = undo.enter_context(s3_server.running(place / "s3", address=address))
        server.make_bucket("bucket")
        ann, bob = (kind(*pair, server, place) for pair in zip(networks, ("ann", "bob"), strict=True))
        undo.callback(end_all, place)
        yield ann, bob, server.data / "bucket/volume"


def end_all(place):
    for host in ("ann", "bob"):
        mounting.detach(place / host)
    for target in (str(place / "ann"), str(place / "bob"), "s3://bucket/volume"):
        with contextlib.suppress(NotFound, ProcessLookupError):
            os.kill(find(target)["pid"], signal.SIGKILL)


def lease_in(volume):
    return json.loads((volume / ".volgate/lease").read_text())


def backlog_of(target):
    return find(str(target))["storage"]["backlog_files"]


def write_backlog(host, count):
    for number in range(count):
        (host.path / f"f{number}").write_bytes(PIECE)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["umount", "release"])
def test_a_host_that_gives_a_volume_up_stores_all_of_it_and_the_next_one_goes_on_at_once(hosts, how):
    ann, bob, volume = hosts
    status = ann.mount("--quota", "1GiB", "-o", "upload_limit=500K")
    (ann.path / "d").mkdir()
    (ann.path / "d/small").write_text("hello")
    write_backlog(ann, 20)
    assert backlog_of(ann.path) > 0
    if how == "umount":
        assert volgate("umount", ann.path, timeout_s=120).returncode == 0
    else:
        ann.kill(status)
        owner = ann.serve("-o", "upload_limit=500K")
        assert backlog_of("s3://bucket/volume") > 0
        socket, hidden = Path(owner["socket"]), Path(owner["socket"]).with_suffix(".hidden")
        socket.rename(hidden)  # hosts have no /run in common, as these two have
        refused = bob.try_("mount", "s3://bucket/volume", bob.path)
        hidden.rename(socket)
        assert refused.returncode == 32
        assert f"is in use without a mount by process {owner['pid']} on host ann since" in refused.stderr
        assert f"'volgate umount {owner['volume_id']}' there ends it" in refused.stderr
        os.rmdir(ann.path)  # nothing of a mount is needed to give it up
        ask(socket, "POST", "/v1/release")
        wait_until(lambda: not Path(f"/proc/{owner['pid']}").exists(), 60)
    lease = lease_in(volume)
    assert (lease["released"], lease["backlog_files"], lease["backlog_bytes"]) == (True, 0, 0)
    assert lease["usage"] == {"bytes": 20 * len(PIECE) + 5, "inodes": 22}

    status = bob.mount()
    assert (status["used_bytes"], status["file_count"]) == (20 * len(PIECE) + 5, 22)
    assert (status["quota_bytes"], status["state"]) == (1 << 30, "ready")
    assert "counted" not in status["usage_found"], "it was told, not counted"
    assert (bob.path / "d/small").read_text() == "hello"
    assert all((bob.path / f"f{number}").read_bytes() == PIECE for number in range(20))
    assert volgate("quota", "check", bob.path).returncode == 0
    assert volgate("umount", bob.path).returncode == 0


@pytest.mark.timeout(360)
def test_what_a_host_that_died_left_behind_is_named_taken_over_only_so_and_overwrites_nothing(hosts):
    ann, bob, volume = hosts
    status = ann.mount("-o", "upload_limit=20K")
    (ann.path / "stored").write_text("hello")
    assert volgate("flush", ann.path).returncode == 0
    write_backlog(ann, 10)
    wait_until(lambda: (volume / ".volgate/lease").exists() and lease_in(volume)["backlog_files"] > 5, 30)
    ann.kill(status)
    left = lease_in(volume)

    refused = bob.try_("mount", "s3://bucket/volume", bob.path)
    assert refused.returncode == 32
    assert "host ann no longer owns volume" in refused.stderr and "--take-over" in refused.stderr, refused
    assert f"its cache still has {left['backlog_files']} files (" in refused.stderr
    status = bob.mount("--take-over")
    assert (bob.path / "stored").read_text() == "hello"
    (bob.path / "f9").write_text("bob's")
    (bob.path / "f8").write_text("bob's, too")

    refused = ann.try_("mount", "s3://bucket/volume", ann.path)
    assert refused.returncode == 32
    assert f"is in use at {bob.path} by process {status['pid']} on host bob since" in refused.stderr
    (bob.path / "stored").write_text("changed")
    assert volgate("umount", bob.path).returncode == 0

    ann.mount()
    assert volgate("flush", ann.path).returncode == 75, "what bob made stands, and ann's is not stored over it"
    refused = {change["name"].partition("@")[0] for change in json.loads(volgate(
        "quarantine", "list", ann.path, "--json").stdout)}  # fmt: skip
    assert {"f8", "f9"} <= refused
    assert (volume / "f9").read_text() == (ann.path / "f9").read_text() == "bob's"
    assert (volume / "f8").read_text() == (ann.path / "f8").read_text() == "bob's, too"
    assert (ann.path / "stored").read_text() == "changed"
    for number in set(range(10)) - {int(name[1:]) for name in refused}:
        assert (volume / f"f{number}").read_bytes() == PIECE
    assert volgate("quota", "check", ann.path).returncode == 0
    assert volgate("umount", ann.path).returncode == 0


@pytest.mark.timeout(360)
def test_containers_of_one_host_with_caches_of_one_path_are_told_apart(place):
    with running_hosts(place, Container) as (ann, bob, volume):
        status = ann.mount("-o", "upload_limit=5K")
        for number in range(10):
            (ann.seen / f"f{number}").write_bytes(PIECE)
        for options in ((), ("--take-over",)):
            refused = bob.try_("mount", "s3://bucket/volume", bob.path, *options)
            assert refused.returncode == 32
            assert f"in use at {ann.path} by process {status['pid']} on host ann since" in refused.stderr, refused
        wait_until(lambda: lease_in(volume)["backlog_files"] > 0, 30)
        os.kill(status["pid"], signal.SIGKILL)

        refused = bob.try_("mount", "s3://bucket/volume", bob.path)
        assert refused.returncode == 32
        assert "host ann no longer owns volume" in refused.stderr and "--take-over" in refused.stderr, refused
        status = bob.mount("--take-over")
        (bob.seen / "new").write_text("bob's")
        os.kill(status["pid"], signal.SIGTERM)
        wait_until(lambda: (volume / "new").exists(), 60)
        wait_until(lambda: not Path(f"/proc/{status['pid']}").exists(), 60)
