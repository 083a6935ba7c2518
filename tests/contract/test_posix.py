"""The posix driver: the contract, inline and in threads, and what only a directory has."""

import functools
import gc
import os
import threading

import pytest
import trio
import trio.testing

from volgate import errors
from volgate.drivers.base import NodeOwner
from volgate.drivers.posix.backend import PosixBackend
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.testing.backend_contract import OWNER, BackendContract, make_directory, put, run


class TestPosix(BackendContract):
    @pytest.fixture
    def make_backend(self, tmp_path):
        return lambda: PosixBackend(tmp_path / "volume")


class TestPosixInThreads(BackendContract):
    @pytest.fixture
    def make_backend(self, tmp_path):
        return lambda: ThreadedBackend(PosixBackend(tmp_path / "volume"))


@pytest.fixture
def make_backend(tmp_path):
    return lambda: PosixBackend(tmp_path / "volume")


def test_a_symlink_put_in_a_directorys_place_leads_nowhere(make_backend, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")

    async def test(backend, root):
        directory = await make_directory(backend, root, b"d")
        await put(backend, directory, b"f", b"mine")
        os.rename(tmp_path / "volume" / "d", tmp_path / "volume" / "moved")
        os.symlink(tmp_path / "outside", tmp_path / "volume" / "d")
        with pytest.raises(errors.NotADirectory):
            await backend.open_directory(root, b"d", 0)
        assert await backend.list_names(directory) == [b"f"]
        os.unlink(tmp_path / "volume" / "moved" / "f")
        os.symlink(tmp_path / "outside" / "secret", tmp_path / "volume" / "moved" / "f")
        with pytest.raises(errors.TooManySymlinks):
            await backend.open_file(directory, b"f", 0, writable=True)

    run(make_backend, test)


def test_what_is_mounted_inside_is_not_crossed(make_backend, tmp_path):
    async def test(backend, root):
        inner = tmp_path / "volume" / "inner"
        inner.mkdir()
        assert os.system(f"mount -t tmpfs none {inner}") == 0
        try:
            with pytest.raises(errors.CrossDevice):
                await backend.get_attributes(root, b"inner")
            with pytest.raises(errors.CrossDevice):
                await backend.open_directory(root, b"inner", 0)
            assert await backend.get_attributes_of(root, [b"inner"]) == [None]
        finally:
            os.system(f"umount {inner}")

    run(make_backend, test)


def test_no_descriptor_is_left_open(make_backend, tmp_path):
    async def test(backend, root):
        directory = await make_directory(backend, root, b"d")
        await put(backend, directory, b"f", b"x")
        file, _ = await backend.open_file(directory, b"f", 0, writable=True)
        await file.close()
        with pytest.raises(errors.Stale):
            await backend.open_file(directory, b"f", 1, writable=True)
        with pytest.raises(errors.Stale):
            await backend.open_directory(root, b"d", 1)
        await backend.list_names(directory)
        await backend.create_symlink(directory, b"s", b"x", OWNER)

    gc.collect()  # what other tests left open may go at any time
    before = len(os.listdir("/proc/self/fd"))
    run(make_backend, test)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_foreign_folder_of_the_gateways_name_is_refused(make_backend, tmp_path):
    (tmp_path / "volume" / ".volgate").mkdir(parents=True)
    (tmp_path / "volume" / ".volgate" / "mine").touch()

    async def test(backend, root):
        with pytest.raises(errors.InvalidArgument, match="move it away"):
            await backend.acquire_ownership(b"me\n")

    run(make_backend, test)


@pytest.mark.parametrize("left", [[], ["format.new"]])
def test_a_crash_while_the_gateways_folder_was_made_locks_nobody_out(make_backend, tmp_path, left):
    folder = tmp_path / "volume" / ".volgate"
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).touch()

    async def test(backend, root):
        assert await backend.load_reserved("volume.json") is None
        await backend.acquire_ownership(b"me\n")
        await backend.store_reserved("volume.json", b"{}")
        assert await backend.load_reserved("volume.json") == b"{}"

    run(make_backend, test)
    assert (folder / "format").exists()


def test_the_umask_of_a_caller_does_not_stay_with_the_process(make_backend):
    async def test(backend, root):
        before = os.umask(0o022)
        try:
            await put(backend, root, b"f", b"x")
            await backend.create_node(root, b"d", 0o040777, NodeOwner(0, 0, 0o777))
            assert os.umask(0o022) == 0o022
        finally:
            os.umask(before)

    run(make_backend, test)


def test_a_slow_fsync_holds_nobody_up(make_backend, monkeypatch):
    other_was_served = threading.Event()

    async def test(backend, root):
        file, _ = await backend.create_file(root, b"f", 0o600, OWNER)
        monkeypatch.setattr(os, "fsync", lambda fd: None if other_was_served.wait(20) else pytest.fail("held up"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(file.sync, data_only=False))
            await trio.testing.wait_all_tasks_blocked()
            assert await file.read(0, 1) == b""
            other_was_served.set()
        await file.close()

    run(make_backend, test)
