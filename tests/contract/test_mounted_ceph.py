"""The driver over a mounted CephFS, on a real cluster: the contract, its quota as a fence, its snapshots."""

import itertools
import os

import pytest
import trio

import ceph_cluster
from volgate import errors
from volgate.drivers.base import BaseStorageBackend
from volgate.drivers.ceph.mounted import MountedCephBackend
from volgate.drivers.registry import Source, load_backend
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import AttributeChanges
from volgate.testing.backend_contract import OWNER, BackendContract, put, run

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


@pytest.fixture
def make_backend(volume):
    return lambda: ThreadedBackend(MountedCephBackend(volume))


class TestMountedCeph(BackendContract):
    @pytest.fixture
    def make_backend(self, volume):
        return lambda: ThreadedBackend(MountedCephBackend(volume))


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
        await backend.fence_quota(10 << 30, None)
        assert (quota(volume, "bytes"), quota(volume, "files")) == ((10 << 30) + (10 << 30) // 50, None)
        await backend.fence_quota(0, 0)  # nothing may be added, and the fence is still one
        assert (quota(volume, "bytes"), quota(volume, "files")) == (64 << 20, 1000)
        await backend.fence_quota(None, None)
        assert (quota(volume, "bytes"), quota(volume, "files")) == (None, None)

    run(make_backend, test)


def test_a_snapshot_keeps_what_stood_there_and_can_only_be_read(make_backend, volume):
    async def test(backend, root):
        assert backend.capabilities.native_snapshots
        await put(backend, root, b"f", b"before")
        before = await backend.get_attributes(root, b"f")
        await backend.create_snapshot("one")
        with pytest.raises(errors.AlreadyExists):
            await backend.create_snapshot("one")
        assert await backend.find_missing_rights() == []
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
                await backend.fence_quota(1 << 30, None)
            with pytest.raises(errors.PermissionDenied, match="lacks 's'"):
                await backend.create_snapshot("one")
            quotas, snapshots = await backend.find_missing_rights()
            assert "lacks 'p'" in quotas and "lacks 's'" in snapshots
            await backend.fence_quota(None, None)  # there is none, so nothing has to be changed

        run(lambda: ThreadedBackend(MountedCephBackend(poor.path / volume.name)), test)
