"""Staged contents: what the journal on the disk names stays as it is until the journal names something else."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import trio

import volumes
from volgate.dto import AttributeChanges
from volumes import SlowStore

OLD, NEW = b"old, acknowledged" * 4, b"NEW" * 4


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch, volumes.scaled_down(patch):
        yield


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place)


def crash(folder, journal=None):
    """Return the cache as a kill -9 leaves it now; or a power cut, which takes the journal back to a picture of it."""
    left = Path(tempfile.mkdtemp(dir=folder)) / "cache"
    shutil.copytree(folder / "cache", left)
    if journal is not None:
        shutil.rmtree(left / "journal")
        shutil.copytree(journal, left / "journal")
    return left


async def content_after(left, name="file"):
    async with volumes.opened(SlowStore(), left, background=False) as volume:
        assert not list(left.glob("quarantine/*")) or name
        return await volume.read(name)


@pytest.mark.parametrize("truncations", [1, 2])
def test_an_acknowledged_content_is_whole_until_the_one_that_replaces_it_is(folder, truncations):
    async def run():
        async with volumes.opened(SlowStore(), folder / "cache", background=False) as volume:
            await volume.write("file", OLD)
            file = await volume.open("file")
            for _ in range(truncations):
                await file.truncate(0)
                await file.write(0, NEW * 4)
            assert await content_after(crash(folder)) == OLD
            await file.flush()
            assert await content_after(crash(folder)) == NEW * 4
            await file.close()

    trio.run(run)


def test_what_is_cut_off_and_written_anew_is_never_seen_at_its_old_length(folder):
    async def run():
        async with volumes.opened(SlowStore(), folder / "cache", background=False) as volume:
            await volume.write("file", OLD)
            file = await volume.open("file")
            await file.truncate(40)
            await file.write(40, NEW)
            assert await content_after(crash(folder)) in (OLD, OLD[:40], OLD[:40] + NEW)
            await file.close()

    trio.run(run)


def test_a_power_cut_finds_the_staged_file_that_the_durable_journal_names(folder):
    async def run():
        async with volumes.opened(SlowStore(), folder / "cache", background=False) as volume:
            await volume.write("file", OLD)
            await volume.write("other", OLD[::-1])
            shutil.copytree(folder / "cache/journal", folder / "durable")
            file = await volume.open("file")
            await file.truncate(0)
            await file.write(0, NEW * 4)
            await file.close()
            await volume.set_attributes("file", AttributeChanges(mode=0o600))
            await volume.rename("file", "other")
            left = crash(folder, folder / "durable")
            assert await content_after(left) == OLD
            assert await content_after(crash(folder, folder / "durable"), "other") == OLD[::-1]

    trio.run(run)


def test_staged_files_that_nobody_needs_are_given_back(folder):
    async def run():
        async with volumes.opened(SlowStore(), folder / "cache") as volume:
            for content in (OLD, NEW * 9, OLD[::-1]):
                await volume.write("file", content)
            await volume.write("other", OLD)
            await volume.rename("other", "file")
            assert await volume.backend.drain() == 0
            await volume.backend.overlay.sync(volume.backend.overlay.record())
            assert os.listdir(folder / "cache/staging") == []
            assert volume.backend.staging.used_bytes == 0

    trio.run(run)


def test_a_file_that_grows_while_its_object_is_copied_knows_where_that_ends(folder):
    """A rename and an append at once: what is kept of the object has the object's length, after a crash too."""

    class Store(SlowStore):
        async def after(self, name, key):
            if name == "copy":
                file = await volume.open("new")
                await volumes.write_all(file, NEW * 5, len(OLD * 2))
                await file.close()

    store, stored = Store(), SlowStore()

    async def run():
        nonlocal volume
        async with volumes.opened(store, folder / "cache", background=False) as volume:
            await volume.write("file", OLD * 2)
            assert await volume.backend.drain() == 0
            await volume.rename("file", "new")
            assert await volume.backend.drain() == 0  # what was written meanwhile is another round
            left, stored._objects = crash(folder), dict(store._objects)
        async with volumes.opened(stored, left, background=False) as restored:
            assert await restored.read("new") == OLD * 2 + NEW * 5
        for each in (store, stored):
            assert await each.get_range("new", 0, 1000) == OLD * 2 + NEW * 5

    volume = None
    trio.run(run)
