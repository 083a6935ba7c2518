"""What a crash leaves of a volume of objects: before and after each write of the journal, and each request."""

import copy
import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
import trio

import volumes
from volgate.cache.journal import Journal
from volgate.drivers.base import RENAME_EXCHANGE
from volgate.dto import AttributeChanges
from volumes import SlowStore

SMALL, STAGED, LARGE = b"small", b"staged" * 9, b"large" * 30
NEW_SMALL, NEW_STAGED, NEW_LARGE = b"SMALL", b"STAGED" * 9, b"LARGE" * 30


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


class Camera:
    """Keeps what a kill -9 would leave, before and after each write of the journal and each request that changes."""

    def __init__(self, place):
        self.place = place
        self.numbers = itertools.count()
        self.store = _WatchedStore(self)
        self.pictures = []
        self.durable = None
        self.is_on = False

    @property
    def directory(self):
        return self.place / "cache"

    def take(self, moment):
        if self.is_on:
            directory = self.place / f"picture-{next(self.numbers)}"
            shutil.copytree(self.directory, directory)
            self.pictures.append((moment, self.store.snapshot(), directory))
            if self.durable is not None:
                shutil.rmtree(directory / "journal")
                shutil.copytree(self.durable, directory / "journal")

    def note_synced(self):
        """From now on a picture is what a power cut leaves: the journal as it was synced last."""
        durable = self.place / f"durable-{next(self.numbers)}"
        shutil.copytree(self.directory / "journal", durable)
        self.durable = durable


class _WatchedStore(SlowStore):
    def __init__(self, camera):
        super().__init__()
        self.camera = camera

    def snapshot(self):
        found = SlowStore()
        found._objects, found._uploads = dict(self._objects), copy.deepcopy(self._uploads)
        found._numbers = itertools.count(1000)
        return found

    async def before(self, name, key):
        await super().before(name, key)
        if name in volumes.CHANGES:
            self.camera.take(f"before {name} {key}")

    async def after(self, name, key):
        if name in volumes.CHANGES:
            self.camera.take(f"after {name} {key}")
        await super().after(name, key)


@pytest.fixture
def camera(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        camera = Camera(Path(place))
        append = Journal.append

        def watched(self, *args):
            camera.take("before a record")
            result = append(self, *args)
            camera.take("after a record")
            return result

        monkeypatch.setattr(Journal, "append", watched)
        yield camera


async def begin(volume):
    for name, content in (("small", SMALL), ("staged", STAGED), ("large", LARGE)):
        await volume.write(name, content)
    await volume.mkdir("folder")
    await volume.mkdir("folder/below")
    await volume.write("folder/one", STAGED)
    await volume.write("folder/below/two", LARGE)
    await volume.symlink("folder/link", b"one")
    assert await volume.backend.drain() == 0


async def create(volume):
    await volume.write("new", NEW_STAGED)


async def create_large(volume):
    await volume.write("new", NEW_LARGE)


async def overwrite_small(volume):
    await volume.write("small", NEW_SMALL)


async def overwrite_staged(volume):
    await volume.write("staged", NEW_STAGED)


async def overwrite_large(volume):
    await volume.write("large", NEW_LARGE)


async def write_into(volume):
    file = await volume.open("large")
    await file.write(40, NEW_SMALL)
    await file.sync(data_only=False)
    await file.close()


async def append(volume):
    file = await volume.open("staged")
    await file.write(len(STAGED), NEW_LARGE)
    await file.close()


async def rename_file(volume):
    await volume.rename("large", "folder/three")


async def rename_over(volume):
    await volume.rename("staged", "large")


async def save_as_editors_do(volume):
    await volume.write("new", NEW_LARGE)
    await volume.rename("new", "large")


async def rename_directory(volume):
    await volume.rename("folder", "moved")


async def exchange(volume):
    await volume.rename("large", "folder/one", RENAME_EXCHANGE)


async def rotate(volume):
    await volume.rename("large", "t")
    await volume.rename("staged", "large")
    await volume.rename("t", "staged")


async def chmod(volume):
    await volume.set_attributes("large", AttributeChanges(mode=0o600))


async def unlink(volume):
    await volume.remove("large")


async def unlink_one_of_a_directory(volume):
    await volume.remove("folder/one")


async def unlink_what_is_new(volume):
    await volume.write("new", NEW_LARGE)
    await volume.remove("new")


async def remove_and_make_again(volume):
    await volume.remove("large")
    await volume.write("large", NEW_STAGED)


WORK = [
    create, create_large, overwrite_small, overwrite_staged, overwrite_large, write_into, append, rename_file,
    rename_over, save_as_editors_do, rename_directory, exchange, rotate, chmod, unlink,
    unlink_one_of_a_directory, unlink_what_is_new,
    remove_and_make_again,
]  # fmt: skip


async def take_pictures(camera, work, pause):
    """Do the work; returns the trees of each of its steps that may be seen after a crash."""
    async with volumes.opened(camera.store, camera.directory) as volume:
        await volume.backend.count_usage(lambda usage: None)
        await begin(volume)
        before = await volume.tree()
        camera.is_on = True
        await work(volume)
        after = await volume.tree()
        camera.take("acknowledged")
        await trio.sleep(pause)
        await volume.backend.drain()
        camera.take("drained")
        camera.is_on = False
    return before, after


async def look_at(moment, store, directory, allowed, last, blocks):
    if blocks == "lost":
        shutil.rmtree(directory / "blocks")
    async with volumes.opened(store, directory) as volume:
        tree = await volume.tree()
        assert tree in allowed, (moment, [{k for k, _ in found ^ tree.items()} for found in map(dict.items, allowed)])
        assert not last or tree == allowed[-1], moment
        assert await volume.backend.drain() == 0, moment
        assert await volume.tree() == tree, moment
        assert await volumes.count(store) == volume.backend.load_usage(), moment
        assert not (await store.list_page(".volgate/aside/")).objects, moment
        assert volume.backend.staging.used_bytes == 0, moment
    async with volumes.opened(store, directory.with_name("empty" + directory.name)) as volume:
        assert await volume.tree() == tree, moment


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
@pytest.mark.parametrize("blocks", ["kept", "lost"])
def test_a_crash_at_any_step_leaves_what_was_or_what_became_and_never_less_than_was_acknowledged(work, camera, blocks):
    before, after = trio.run(take_pictures, camera, work, 0)
    assert camera.pictures
    acknowledged = False
    for moment, store, directory in camera.pictures:
        acknowledged = acknowledged or moment == "acknowledged"
        allowed = [before, *steps_between(work, before), after]
        trio.run(look_at, moment, store, directory, allowed, acknowledged, blocks)


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_a_power_cut_that_takes_the_end_of_the_journal_leaves_what_was_or_what_became(work, camera, monkeypatch):
    sync = Journal.sync

    async def watched(self, sequence):
        is_done = self._durable.sequence >= sequence
        await sync(self, sequence)
        if not is_done:
            camera.note_synced()

    monkeypatch.setattr(Journal, "sync", watched)
    before, after = trio.run(take_pictures, camera, work, 0)
    monkeypatch.setattr(Journal, "sync", sync)
    assert camera.durable is not None
    for moment, store, directory in camera.pictures:
        allowed = [before, *steps_between(work, before), after]
        trio.run(look_at, moment, store, directory, allowed, False, "lost")


def steps_between(work, before):
    """Return what lies between the first and the last tree where the work has several steps."""
    mode = 0o100644
    if work is save_as_editors_do:
        return [{**before, "new": (mode, b"")}, {**before, "new": (mode, NEW_LARGE)}]
    if work is unlink_what_is_new:
        return [{**before, "new": (mode, NEW_LARGE)}]
    if work is rotate:
        without = {path: found for path, found in before.items() if path != "large"}
        first = {**without, "t": before["large"]}
        second = {path: found for path, found in first.items() if path != "staged"}
        return [first, {**second, "large": before["staged"]}]
    if work is remove_and_make_again:
        return [{path: found for path, found in before.items() if path != "large"}]
    return []
