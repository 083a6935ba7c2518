"""Both ways to CephFS, on a real cluster: contract, its quota as a fence, its snapshots, a client that is cut off."""

import ctypes
import errno
import functools
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
import trio

import ceph_cluster
from volgate import errors
from volgate.drivers.base import BaseStorageBackend
from volgate.drivers.ceph import libcephfs
from volgate.drivers.ceph.mounted import MountedCephBackend
from volgate.drivers.registry import Source, load_backend
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import AttributeChanges
from volgate.testing.backend_contract import CONTEXT, OWNER, BackendContract, make_directory, put, run
from volgate.volume.fence import set_fence

VOLUMES = itertools.count()


@pytest.fixture(scope="module")
def cluster(module_place):
    with ceph_cluster.running(module_place) as found:
        yield found


@pytest.fixture(scope="module")
def cephfs(cluster, module_place):
    with ceph_cluster.mounted(cluster, module_place / "cephfs") as found:
        yield found.path


@pytest.fixture
def volume(cephfs):
    return cephfs / f"volume-{next(VOLUMES)}"


def options(cluster):
    return {"conf": str(cluster.configuration), "client": "fs"}


@pytest.fixture
def make_mounted(volume):
    return lambda: ThreadedBackend(MountedCephBackend(volume))


@pytest.fixture
def make_direct(cluster, volume):
    return lambda: load_backend(Source("ceph", f"ceph:///{volume.name}", options(cluster)))


@pytest.fixture(params=["mounted", "direct"])
def make_backend(request):
    return request.getfixturevalue(f"make_{request.param}")


class TestMounted(BackendContract):
    @pytest.fixture
    def make_backend(self, make_mounted):
        return make_mounted


class TestDirect(BackendContract):
    @pytest.fixture
    def make_backend(self, make_direct):
        return make_direct


def quota(path, which):
    """Return a limit of CephFS's own; it shows one that is not set as 0 beside another, and not at all else."""
    try:
        return int(os.getxattr(path, f"ceph.quota.max_{which}")) or None
    except OSError:
        return None


def test_a_directory_on_cephfs_is_known_as_one(volume, tmp_path):
    volume.mkdir()
    found: BaseStorageBackend = load_backend(Source("posix", str(volume)))
    assert found.backend_type == "ceph"
    assert load_backend(Source("posix", str(tmp_path))).backend_type == "posix"


def test_the_fence_stands_above_the_limit_and_none_zero_and_unlimited_are_kept_apart(make_backend, volume):
    async def test(backend, root):
        assert backend.capabilities.native_quota
        assert (quota(volume, "bytes"), quota(volume, "files")) == (None, None)
        await set_fence(backend, 10 << 30, None)
        assert (quota(volume, "bytes"), quota(volume, "files")) == ((10 << 30) + (10 << 30) // 50, None)
        await set_fence(backend, 0, 0)  # nothing may be added, and the fence is still one
        assert (quota(volume, "bytes"), quota(volume, "files")) == (64 << 20, 1000)
        await set_fence(backend, None, None)
        assert (quota(volume, "bytes"), quota(volume, "files")) == (None, None)

    run(make_backend, test)


def test_a_limit_that_an_administrator_set_is_never_changed(make_backend, volume):
    async def test(backend, root):
        os.setxattr(volume, "ceph.quota.max_bytes", b"5000000000")  # as that of a subvolume
        await set_fence(backend, None, None)
        for limit in (1 << 20, 1 << 40):
            with pytest.raises(errors.NotPermitted, match="a limit of its own, 4"):
                await set_fence(backend, limit, None)
            assert quota(volume, "bytes") == 5_000_000_000
        os.setxattr(volume, "ceph.quota.max_bytes", b"0")
        await set_fence(backend, 1 << 20, None)
        os.setxattr(volume, "ceph.quota.max_bytes", b"5000000000")
        await set_fence(backend, None, None)
        assert quota(volume, "bytes") == 5_000_000_000

    run(make_backend, test)


def test_a_snapshot_keeps_what_stood_there_and_can_only_be_read(make_backend, volume):
    async def test(backend, root):
        assert backend.capabilities.native_snapshots
        await put(backend, root, b"f", b"before")
        before = await backend.get_attributes(root, b"f")
        await backend.create_snapshot("one")
        with pytest.raises(errors.AlreadyExists):
            await backend.create_snapshot("one")
        assert (await backend.inspect()).missing == ()
        await put(backend, root, b"g", b"later")
        await backend.remove(root, b"f", is_directory=False)
        assert [snapshot.name for snapshot in await backend.list_snapshots()] == ["one"]
        assert abs((await backend.list_snapshots())[0].created_at * 1e9 - before.ctime_ns) < 60e9
        kept = await backend.open_snapshot("one")
        assert await backend.list_names(kept) == [b"f"]
        file, attributes = await backend.open_file(kept, b"f", 0, writable=False)
        assert await file.read(0, 100) == b"before"
        assert (attributes.mtime_ns, attributes.mode) == (before.mtime_ns, before.mode)
        await file.close()
        with pytest.raises(errors.ReadOnly):
            await backend.create_file(kept, b"h", 0o644, OWNER)
        with pytest.raises(errors.ReadOnly):
            await backend.remove(kept, b"f", is_directory=False)
        with pytest.raises(errors.ReadOnly):
            await backend.set_attributes(kept, b"f", 0, AttributeChanges(mode=0o600))
        kept.close()
        await backend.delete_snapshot("one")
        assert await backend.list_snapshots() == []
        for act in (backend.open_snapshot, backend.delete_snapshot):
            with pytest.raises(errors.NotFound):
                await act("one")

    run(make_backend, test)


@pytest.mark.parametrize("name", ["", "..", ".x", "_x", "a/b", "a\0b"])
def test_what_is_no_name_of_a_snapshot_is_refused(make_backend, name):
    async def test(backend, root):
        for act in (backend.create_snapshot, backend.open_snapshot, backend.delete_snapshot):
            with pytest.raises(errors.InvalidArgument):
                await act(name)

    run(make_backend, test)


def test_snapshots_of_directories_above_are_none_of_the_volume(make_backend, volume, cephfs):
    async def test(backend, root):
        above = cephfs / ".snap" / "of-all"
        await trio.to_thread.run_sync(os.mkdir, above)
        try:
            assert await backend.list_snapshots() == []
        finally:
            await trio.to_thread.run_sync(os.rmdir, above)

    run(make_backend, test)


def test_a_client_without_the_rights_is_told_which_it_lacks(cluster, cephfs, module_place, volume):
    volume.mkdir()
    keyring = module_place / "poor.keyring"
    keyring.write_text(
        cluster.ceph(
            "auth", "get-or-create", "client.poor", "mon", "allow r", "mds", "allow rw", "osd",
            "allow rw tag cephfs data=cephfs",
        )
    )  # fmt: skip
    with ceph_cluster.mounted(cluster, module_place / "poor", client="client.poor", keyring=keyring) as poor:

        async def test(backend, root):
            with pytest.raises(errors.PermissionDenied, match="lacks 'p'"):
                await set_fence(backend, 1 << 30, None)
            with pytest.raises(errors.PermissionDenied, match="lacks 's'"):
                await backend.create_snapshot("one")
            quotas, snapshots = (await backend.inspect()).missing
            assert "lacks 'p'" in quotas and "lacks 's'" in snapshots
            await set_fence(backend, None, None)  # there is none, so nothing has to be changed

        run(lambda: ThreadedBackend(MountedCephBackend(poor.path / volume.name)), test)


LAYOUT = r"""
#define _FILE_OFFSET_BITS 64
#include <cephfs/libcephfs.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/statvfs.h>
#define AT(field) printf("%zu ", offsetof(struct ceph_statx, stx_##field));
int main(void) {
    AT(mask) AT(blksize) AT(nlink) AT(uid) AT(gid) AT(mode) AT(ino) AT(size) AT(blocks) AT(dev) AT(rdev) AT(atime)
    AT(ctime) AT(mtime) AT(btime) AT(version)
    printf("%zu %zu %zu ", sizeof(struct ceph_statx), sizeof(struct statvfs), sizeof(struct flock));
    printf("%d %d %d %d %d %d %d", CEPH_STATX_BASIC_STATS, CEPH_SETATTR_MODE, CEPH_SETATTR_UID, CEPH_SETATTR_GID,
           CEPH_SETATTR_MTIME, CEPH_SETATTR_ATIME, CEPH_SETATTR_SIZE);
}
"""


def test_structures_and_flags_are_those_of_the_header(tmp_path):
    (tmp_path / "layout.c").write_text(LAYOUT)
    subprocess.run(["gcc", "-o", tmp_path / "layout", tmp_path / "layout.c"], check=True, timeout=60)
    said = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout
    ours = [getattr(libcephfs.Statx, name).offset for name, _ in libcephfs.Statx._fields_]
    ours += [ctypes.sizeof(struct) for struct in (libcephfs.Statx, libcephfs.Statvfs, libcephfs.Flock)]
    ours += [libcephfs.STATX_WANTED, libcephfs.SETATTR_MODE, libcephfs.SETATTR_UID, libcephfs.SETATTR_GID]
    ours += [libcephfs.SETATTR_MTIME, libcephfs.SETATTR_ATIME, libcephfs.SETATTR_SIZE]
    assert ours == list(map(int, said.split()))


def evict(cluster, volume):
    """Have the cluster cut off the clients of a volume."""
    for session in json.loads(cluster.ceph("tell", "mds.a", "session", "ls")):
        if session["client_metadata"].get("root") == f"/{volume.name}":
            cluster.ceph("tell", "mds.a", "session", "evict", f"id={session['id']}")


def test_a_client_that_is_cut_off_is_mounted_anew_and_what_was_not_stored_is_an_error(make_direct, cluster, volume):
    async def test(backend, root):
        await backend.acquire_ownership(b"holder")
        directory = await make_directory(backend, root, b"d")
        await put(backend, directory, b"stored", b"stored")
        stored, _ = await backend.open_file(directory, b"stored", 0, writable=True)
        unstored, _ = await backend.create_file(directory, b"unstored", 0o644, OWNER)
        await unstored.write(0, b"never synced")
        await trio.to_thread.run_sync(evict, cluster, volume)
        assert set(await backend.list_names(directory)) == {b"stored", b"unstored"}
        assert await stored.read(0, 100) == b"stored"
        for attempt in (unstored.sync(data_only=True), unstored.write(0, b"x"), unstored.read(0, 1)):
            with pytest.raises(errors.InputOutput, match="cut this client off"):
                await attempt
        await unstored.close()
        await stored.write(0, b"STORED")
        await stored.sync(data_only=True)
        await stored.close()
        await put(backend, directory, b"after", b"after")
        other = load_backend(Source("ceph", f"ceph:///{volume.name}", options(cluster)))
        await other.open_volume(CONTEXT)
        try:
            with pytest.raises(errors.Busy, match="holder"):
                await other.acquire_ownership(b"another")
        finally:
            await other.close()

    run(make_direct, test)


KILLED = """
import os, signal, sys, trio
from volgate.drivers.registry import Source, load_backend
from volgate.volume.fence import set_fence
from volgate.testing.backend_contract import CONTEXT, OWNER

async def main():
    backend = load_backend(Source("ceph", sys.argv[1], {"conf": sys.argv[2], "client": "fs"}))
    root = await backend.open_volume(CONTEXT)
    await backend.acquire_ownership(b"the killed one")
    file, _ = await backend.create_file(root, b"f", 0o644, OWNER)
    await file.write(0, b"closed")
    await file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


def test_the_owner_that_was_killed_holds_nobody_up_and_what_it_closed_is_there(make_direct, cluster, volume):
    volume.mkdir()
    command = [sys.executable, "-c", KILLED, f"ceph:///{volume.name}", str(cluster.configuration)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL

    async def test(backend, root):
        with trio.fail_after(20):  # its session would live for another minute
            await backend.acquire_ownership(b"the next one")
            file, _ = await backend.open_file(root, b"f", 0, writable=True)
            assert await file.read(0, 100) == b"closed"
            await file.close()

    run(make_direct, test)


@pytest.mark.parametrize("source", ["ceph://host/path", "ceph://"])
def test_what_names_no_directory_of_a_cephfs_is_refused(source):
    with pytest.raises(errors.BadConfiguration, match="ceph:///PATH"):
        load_backend(Source("ceph", source))


def test_options_of_others_and_a_missing_cluster_are_told(tmp_path):
    with pytest.raises(errors.BadConfiguration, match="endpoint_url is none of CephFS's"):
        load_backend(Source("ceph", "ceph:///x", {"endpoint_url": "x"}))
    backend = load_backend(Source("ceph", "ceph:///x", {"conf": str(tmp_path / "no.conf")}))
    with pytest.raises(errors.BadConfiguration, match=r"no\.conf cannot be read"):
        trio.run(backend.open_volume, CONTEXT)


def test_where_nobody_may_take_a_snapshot_that_is_said(make_backend, cluster):
    async def test(backend, root):
        ceph = functools.partial(trio.to_thread.run_sync, cluster.ceph, "fs", "set", "cephfs", "allow_new_snaps")
        await ceph("false")
        try:
            with pytest.raises(errors.PermissionDenied, match="allow_new_snaps"):
                await backend.create_snapshot("one")
        finally:
            await ceph("true")

    run(make_backend, test)


def test_after_a_failed_sync_every_later_one_fails_and_reading_goes_on(make_direct, monkeypatch):
    async def test(backend, root):
        file, _ = await backend.create_file(root, b"f", 0o644, OWNER)
        await file.write(0, b"content")
        call = backend.inner.client.call

        def full(name, *arguments):
            if name == "ll_fsync":
                raise OSError(errno.ENOSPC, "the cluster is full")
            return call(name, *arguments)

        monkeypatch.setattr(backend.inner.client, "call", full)
        with pytest.raises(errors.NoSpace):
            await file.sync(data_only=True)
        monkeypatch.undo()
        with pytest.raises(errors.InputOutput, match="earlier"):
            await file.sync(data_only=True)
        assert await file.read(0, 100) == b"content"
        await file.close()

    run(make_direct, test)
