"""A server that carries a request out when its process is long dead: what was written since stays."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
import trio
from test_crash_points import WORK, Camera, begin

import volumes
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.dto import AttributeChanges
from volgate.errors import StorageException


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


@pytest.fixture
def camera():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield _CameraOfRequests(Path(place))


class _CameraOfRequests(Camera):
    """Keeps what a kill -9 leaves while a request is on its way, and the request."""

    def take(self, moment):
        if self.is_on and moment.startswith("before "):
            super().take((moment, volumes.CALL.get()))


async def write_anew(volume, key):
    """Change what lies under a key, in a process of later."""
    *above, name = key.removesuffix("/").split("/")
    directory = volume.root
    for n, part in enumerate(above):
        if await volume.backend.find_attributes(directory, part.encode()) is None:
            await volume.mkdir("/".join(above[: n + 1]))
        directory = await volume.backend.open_directory(directory, part.encode(), 0)
    is_there = await volume.backend.find_attributes(directory, name.encode()) is not None
    if not key.endswith("/"):
        await volume.write(key, b"newer" * 3)
    elif is_there:
        await volume.set_attributes(key.removesuffix("/"), AttributeChanges(mode=0o711))
    else:
        await volume.mkdir(key.removesuffix("/"))


async def carry_out_late(moment, store, directory, call):
    name, args, kwargs = call
    async with volumes.opened(store, directory) as volume:
        await write_anew(volume, args[0])
        assert await volume.backend.drain() == 0, moment
        tree = await volume.tree()
    with contextlib.suppress(StorageException):
        await getattr(MemoryObjectStore, name)(store, *args, **kwargs)
    shutil.rmtree(directory)
    async with volumes.opened(store, directory) as volume:
        assert await volume.tree() == tree, moment
        assert await volumes.count(store) == await volume.backend.count_usage(lambda usage: None), moment


async def take_pictures(camera, work):
    async with volumes.opened(camera.store, camera.directory) as volume:
        await volume.backend.count_usage(lambda usage: None)
        await begin(volume)
        camera.is_on = True
        await work(volume)
        await volume.backend.drain()
        camera.is_on = False


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_a_request_of_a_dead_process_overwrites_nothing_newer(work, camera):
    trio.run(take_pictures, camera, work)
    assert camera.pictures or work.__name__ == "unlink_what_is_new"
    for (moment, call), store, directory in camera.pictures:
        name, (key, *_), _ = call
        if key.startswith(".volgate/") or key.endswith("link"):
            continue
        if name == "delete" and key.endswith("/"):
            continue  # all directories have the etag of no content: a condition cannot tell the new from the old
        trio.run(carry_out_late, moment, store, directory, call)
