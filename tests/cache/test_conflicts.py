"""Races with other writers of the bucket: the winner is shown at once, as a new inode; the loser's content is kept."""

import shutil
import tempfile
from pathlib import Path

import pytest
import trio
from test_crash_points import camera  # noqa: F401 - a fixture

import volumes
from volgate.drivers.base import RENAME_NOREPLACE
from volgate.dto import AttributeChanges, Usage
from volgate.errors import InputOutput, NotFound, Stale
from volumes import SlowStore

FIRST, OURS, THEIRS = b"first" * 5, b"ours" * 8, b"theirs" * 9
LARGE = b"large" * 30


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place)


class Race:
    """A file that was written here and by others at once; the gateway has noticed."""

    def __init__(self, store, folder, *, first=FIRST, ours=OURS, theirs=THEIRS):
        self.store, self.folder = store, folder
        self.first, self.ours, self.theirs = first, ours, theirs
        self.replaced = []

    def opened(self, **settings):
        return volumes.opened(self.store, self.folder / "cache", ttl_s=60, **settings)

    async def lose(self, volume, name="file"):
        """Write; returns the handle and the inode's number."""
        backend = volume.backend
        backend.watch_usage(lambda before, after: self.replaced.append((before, after)))
        await backend.count_usage(lambda usage: None)
        if self.first is not None:
            await volume.write(name, self.first)
            assert await backend.drain() == 0
            file = await volume.open(name)
        else:
            file = await volume.create(name)
        ino = (await file.get_attributes()).ino
        await self.store.put(name, self.theirs)
        await volumes.write_all(file, self.ours)
        with pytest.raises(InputOutput, match="another writer"):
            await file.sync(data_only=False)
        return file, ino

    async def check_usage(self, volume, kept):
        """Usage is what the bucket counts, and what is kept in quarantine; whoever watched it knows that."""
        listed, usage = await volumes.count(self.store), volume.backend.load_usage()
        assert usage.bytes_ == listed.bytes_ + sum(map(len, kept))
        assert usage.inodes == listed.inodes + len(kept)
        assert await volume.backend.count_usage(lambda usage: None, keep=False) == usage


async def export(volume, folder, name):
    path = folder / f"export-{name.replace('/', '_')}"
    await volume.backend.quarantine.export(name, path)
    return path.read_bytes()


@pytest.mark.parametrize("first", [FIRST, LARGE, b"", None])
@pytest.mark.parametrize("ours", [b"ours", OURS, LARGE[::-1]])
def test_the_winner_is_a_new_inode_and_the_loser_lies_in_quarantine(folder, first, ours):
    async def run():
        race = Race(SlowStore(), folder, first=first, ours=ours + (first or b"")[len(ours) :] if first else ours)
        async with race.opened() as volume:
            file, ino = await race.lose(volume)
            place = await volume.place("file")
            attributes = await volume.backend.get_attributes(*place)
            assert attributes.ino != ino
            assert attributes.size == len(THEIRS)
            assert await volume.read("file") == THEIRS
            (lost,) = volume.backend.quarantine.list()
            assert lost.name.startswith("file@")
            assert lost.size == len(race.ours)
            if len(ours) >= len(first or b""):
                assert await export(volume, folder, lost.name) == race.ours
            await race.check_usage(volume, [race.ours])
            for use in (
                lambda: file.read(0, 1),
                lambda: file.write(0, b"x"),
                lambda: file.truncate(0),
                lambda: file.sync(data_only=False),
                lambda: file.flush(),
                lambda: file.get_attributes(),
                lambda: file.set_attributes(AttributeChanges(mode=0o600)),
            ):
                with pytest.raises(Stale):
                    await use()
            await file.close()
            assert await volume.backend.drain() == 1
            assert await volume.read("file") == THEIRS
        async with race.opened() as volume:
            (lost,) = volume.backend.quarantine.list()
            assert await volume.read("file") == THEIRS
            assert set(await volume.tree()) == {"file"}
            await race.check_usage(volume, [race.ours])
            if len(ours) >= len(first or b""):
                (folder / f"export-{lost.name}").unlink(missing_ok=True)
                assert await export(volume, folder, lost.name) == race.ours
            await volume.backend.quarantine.drop(lost.name)
            assert volume.backend.quarantine.list() == []
            await race.check_usage(volume, [])
            assert await volume.backend.drain() == 0
            assert not list((folder / "cache/staging").iterdir())

    trio.run(run)


@pytest.mark.parametrize("ours", [b"ours", OURS, LARGE])
def test_a_crash_leaves_the_race_to_be_lost_again_or_lost(folder, camera, ours):  # noqa: F811
    async def run():
        race = Race(camera.store, camera.place, ours=ours, first=None)
        async with race.opened(background=False) as volume:
            camera.is_on = True
            file, _ = await race.lose(volume)
            camera.is_on = False
            await file.close()
        seen = 0
        for moment, store, directory in camera.pictures:
            async with volumes.opened(store, directory, ttl_s=60) as volume:
                await volume.backend.drain()
                lost = [change for change in volume.backend.quarantine.list() if not change.is_orphan]
                if lost:
                    assert await volume.read("file") == THEIRS, moment
                    assert await export(volume, directory, lost[0].name) == ours, moment
                    assert await volumes.count(store) == Usage(len(THEIRS), 1)
                    assert volume.backend.load_usage() == Usage(len(THEIRS) + len(ours), 2)
                    seen += 1
        assert seen > 1

    trio.run(run)


def test_what_was_changed_in_part_cannot_be_exported_once_the_rest_is_gone(folder):
    async def run():
        race = Race(SlowStore(), folder, first=LARGE, ours=b"ours")
        async with race.opened() as volume:
            file, _ = await race.lose(volume)
            await file.close()
        shutil.rmtree(folder / "cache/blocks")
        async with race.opened() as volume:
            (lost,) = volume.backend.quarantine.list()
            with pytest.raises(Stale, match="an earlier version of that, where the bucket keeps them"):
                await export(volume, folder, lost.name)
            assert not (folder / f"export-{lost.name}").exists()
            await volume.backend.quarantine.drop(lost.name)
            await race.check_usage(volume, [])

    trio.run(run)


def test_the_name_goes_on_being_used(folder):
    async def run():
        race = Race(SlowStore(), folder)
        async with race.opened() as volume:
            file, _ = await race.lose(volume)
            await volume.write("file", b"later")
            await volume.rename("file", "elsewhere", RENAME_NOREPLACE)
            await volume.write("file", LARGE)
            assert await volume.backend.drain() == 1
            assert await race.store.get_range("elsewhere", 0, 100) == b"later"
            assert await race.store.get_range("file", 0, 1000) == LARGE
            await volume.remove("file")
            assert await volume.backend.drain() == 1
            assert (await race.store.list_page("file")).objects == ()
            await race.check_usage(volume, [OURS])
            await file.close()

    trio.run(run)


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("ours", [b"ours", OURS, LARGE])
def test_a_loser_that_is_tried_again_replaces_the_winner(folder, reopened, held, ours):
    async def run():
        race = Race(SlowStore(), folder, first=None, ours=ours)
        async with race.opened() as volume:
            file, _ = await race.lose(volume)
            if not held:
                await file.close()
            if not reopened:
                await race_on(volume)
            if held:
                await file.close()
        if reopened:
            async with race.opened() as volume:
                await race_on(volume)

    async def race_on(volume):
        winner = await volume.open("file", writable=False)
        (lost,) = volume.backend.quarantine.list()
        await volume.backend.quarantine.retry(lost.name)
        assert await volume.read("file") == ours
        assert await volume.backend.drain() == 0
        assert await volume.backend._store.get_range("file", 0, 1000) == ours
        assert volume.backend.quarantine.list() == []
        assert volume.backend.load_usage() == await volumes.count(volume.backend._store)
        await winner.close()

    trio.run(run)


def test_a_loser_whose_directory_is_gone_can_only_be_exported(folder):
    async def run():
        race = Race(SlowStore(), folder)
        async with race.opened() as volume:
            await volume.mkdir("folder")
            file, _ = await race.lose(volume, "folder/file")
            await file.close()
            await volume.remove("folder/file")
            await volume.remove("folder", is_directory=True)
            (lost,) = volume.backend.quarantine.list()
            with pytest.raises(NotFound, match="export"):
                await volume.backend.quarantine.retry(lost.name)
            assert await export(volume, folder, lost.name) == OURS

    trio.run(run)


def test_a_file_that_was_renamed_keeps_its_content_where_another_stands_under_its_new_name(folder):
    async def run():
        race = Race(SlowStore(), folder)
        async with race.opened() as volume:
            await volume.backend.count_usage(lambda usage: None)
            await volume.write("file", LARGE)
            assert await volume.backend.drain() == 0
            assert await volume.backend.find_attributes(*await volume.place("new")) is None
            await race.store.put("new", THEIRS)
            await volume.rename("file", "new")
            while await volume.backend.drain() != 1:
                await trio.sleep(0.01)
            assert await volume.read("new") == THEIRS
            (lost,) = volume.backend.quarantine.list()
            assert await export(volume, folder, lost.name) == LARGE
        async with race.opened() as volume:
            (lost,) = volume.backend.quarantine.list()
            (folder / f"export-{lost.name}").unlink()
            assert await export(volume, folder, lost.name) == LARGE
            assert set(await volume.tree()) == {"new"}
            await volume.write("file", OURS)
            assert await volume.backend.drain() == 1
            assert await race.store.get_range("file", 0, 1000) == OURS
            (folder / f"export-{lost.name}").unlink()
            assert await export(volume, folder, lost.name) == LARGE
            await volume.backend.quarantine.drop(lost.name)
            assert await volume.backend.drain() == 0
            assert {listed.key for listed in (await race.store.list_page("")).objects if "root" not in listed.key} == {
                "file",
                "new",
            }
            assert volume.backend.load_usage() == await volumes.count(race.store)

    trio.run(run)


def test_changed_attributes_of_what_others_replaced_are_those_of_a_file_that_is_gone(folder):
    async def run():
        race = Race(SlowStore(), folder)
        async with race.opened() as volume:
            await volume.backend.count_usage(lambda usage: None)
            await volume.write("file", FIRST)
            assert await volume.backend.drain() == 0
            await race.store.put("file", THEIRS)
            await volume.set_attributes("file", AttributeChanges(mode=0o600))
            assert await volume.backend.drain() == 0
            assert volume.backend.quarantine.list() == []
            assert await volume.read("file") == THEIRS
            assert await race.store.get_range("file", 0, 1000) == THEIRS
            await race.check_usage(volume, [])

    trio.run(run)


def test_a_directory_whose_object_others_replaced_keeps_what_lies_in_it(folder):
    async def run():
        race = Race(SlowStore(), folder)
        async with race.opened() as volume:
            assert await volume.backend.list_names(volume.root) == []
            await race.store.put("folder/", b"", metadata={"mode": str(0o40750)})
            await volume.mkdir("folder")
            await volume.write("folder/file", FIRST)
            assert await volume.backend.drain() == 0
            assert await volume.read("folder/file") == FIRST
            assert volume.backend.quarantine.list() == []
            attributes = await volume.backend.get_attributes(*await volume.place("folder"))
            assert attributes.mode & 0o777 == 0o750

    trio.run(run)


def test_whoever_waits_for_an_upload_that_loses_hears_of_it(folder):
    async def run():
        store = SlowStore()
        async with volumes.opened(store, folder / "cache", ttl_s=60) as volume:
            file = await volume.create("file")
            await file.write(0, OURS)
            await store.put("file", THEIRS)
            failed = []

            async def sync():
                try:
                    await file.sync(data_only=False)
                except (InputOutput, Stale) as error:
                    failed.append(error)

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(sync)
            assert len(failed) == 5
            await file.close()

    trio.run(run)
