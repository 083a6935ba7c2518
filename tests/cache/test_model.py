"""A volume of objects against the reference: whatever is done in whatever order, uploaded when and crashed where."""

import itertools
import os
import stat
import tempfile
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from volgate.cache.backend import CachedBackend
from volgate.cache.counting import count_objects
from volgate.cache.settings import CacheSettings
from volgate.drivers.base import RENAME_EXCHANGE, RENAME_NOREPLACE
from volgate.drivers.memory import MemoryBackend
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.dto import AttributeChanges, Usage
from volgate.errors import StorageException, Unavailable
from volgate.testing.backend_contract import CONTEXT, OWNER


class BadStore(MemoryObjectStore):
    """Answers changes late: who is cancelled, or dies, meanwhile does not hear what was done. And fails, when told.

    Attributes:
        failures: of the changes to come: fail before it is done, fail after, do not fail.
    """

    def __init__(self):
        super().__init__()
        self.failures = []

    async def put(self, *args, **options):
        return await self._change(super().put, args, options)

    async def copy(self, *args, **options):
        return await self._change(super().copy, args, options)

    async def delete(self, *args, **options):
        return await self._change(super().delete, args, options)

    async def _change(self, call, args, options):
        failure = self.failures.pop() if self.failures else "none"
        if failure == "before":
            raise Unavailable("told to fail")
        done = await call(*args, **options)
        await trio.lowlevel.checkpoint()
        if failure == "after":
            raise Unavailable("told to fail, and done all the same")
        return done


NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
SIZES = st.sampled_from([0, 1, 100, 65_536, 65_537, 200_000])
OFFSETS = st.sampled_from([0, 1, 99, 65_535, 70_000])
MODES = st.sampled_from([0o600, 0o644, 0o755])
FLAGS = st.sampled_from([0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), PATHS, SIZES),
        st.tuples(st.just("make"), PATHS, SIZES),
        st.tuples(st.just("write"), PATHS, OFFSETS, SIZES),
        st.tuples(st.just("truncate"), PATHS, SIZES),
        st.tuples(st.just("mkdir"), PATHS),
        st.tuples(st.just("mkdir"), PATHS),
        st.tuples(st.just("link"), PATHS),
        st.tuples(st.just("remove"), PATHS),
        st.tuples(st.just("rmdir"), PATHS),
        st.tuples(st.just("rename"), PATHS, PATHS, FLAGS),
        st.tuples(st.just("rename"), PATHS, PATHS, FLAGS),
        st.tuples(st.just("chmod"), PATHS, MODES),
        st.tuples(st.just("upload"), st.integers(1, 8)),
        st.tuples(st.just("wait")),
        st.tuples(st.just("fail"), st.lists(st.sampled_from(["before", "after", "none"]), max_size=3)),
        st.tuples(st.just("remount")),
        st.tuples(st.just("crash")),
        st.tuples(st.just("lose cache")),
    ),
    max_size=25,
)


async def directory_of(backend, root, path):
    directory = root
    for name in path[:-1]:
        directory = await backend.open_directory(directory, name, 0)
    return directory


async def change(backend, root, step, fill):
    """Do one step; returns the class of what was raised, None where nothing was."""
    verb, path, *rest = step
    try:
        directory = await directory_of(backend, root, path)
        if verb == "make":
            file, _ = await backend.create_file(directory, path[-1], 0o640, OWNER)
            await write(file, 0, fill * rest[0])
        elif verb == "write":
            file, _ = await backend.open_file(directory, path[-1], 0, writable=True)
            await write(file, rest[0], fill * rest[1])
        elif verb == "truncate":
            file, _ = await backend.open_file(directory, path[-1], 0, writable=True)
            await file.truncate(rest[0])
            await file.flush()
            await file.close()
        elif verb == "mkdir":
            await backend.create_node(directory, path[-1], stat.S_IFDIR | 0o750, OWNER)
        elif verb == "link":
            await backend.create_symlink(directory, path[-1], b"target", OWNER)
        elif verb in ("remove", "rmdir"):
            await backend.remove(directory, path[-1], is_directory=verb == "rmdir")
        elif verb == "rename":
            target, flags = rest
            await backend.rename(directory, path[-1], await directory_of(backend, root, target), target[-1], flags)
        elif verb == "chmod":
            await backend.set_attributes(directory, path[-1], 0, AttributeChanges(mode=rest[0], mtime_ns=rest[0]))
    except StorageException as error:
        return type(error)


async def write(file, offset, data):
    if data:
        await file.write(offset, data)
    await file.flush()
    await file.close()


async def tree(backend, directory, path=()):
    """Return what can be seen of a volume: types, modes, contents."""
    found = {}
    for name in await backend.list_names(directory):
        attributes = await backend.get_attributes(directory, name)
        here, mode = (*path, name), attributes.mode
        if stat.S_ISDIR(mode):
            found[here] = mode, None
            found |= await tree(backend, await backend.open_directory(directory, name, 0), here)
        elif stat.S_ISLNK(mode):
            found[here] = mode, await backend.read_link(directory, name, 0)
        else:
            file, _ = await backend.open_file(directory, name, 0, writable=False)
            found[here] = mode, await file.read(0, attributes.size + 1)
            await file.close()
    return found


async def play(steps, folder):
    store, reference = BadStore(), MemoryBackend()
    caches = itertools.count()
    await reference.create_volume(CONTEXT)
    top = await reference.open_volume(CONTEXT)

    async def opened(cache):
        backend = CachedBackend(store, CacheSettings(folder / str(cache), min_free_bytes=0))
        root = await backend.open_volume(CONTEXT)
        if backend.load_usage() is None:
            await backend.count_usage(lambda _: None)
        return backend, root

    cache = next(caches)
    backend, root = await opened(cache)
    step = None
    for number, step in enumerate(steps):
        async with trio.open_nursery() as uploads:
            if step[0] == "upload":
                uploads.start_soon(backend.drain)
                for _ in range(step[1]):
                    await trio.lowlevel.checkpoint()
                uploads.cancel_scope.cancel()
            elif step[0] == "fail":
                store.failures = list(step[1])
            elif step[0] == "wait":
                store.failures = []
                assert await backend.drain() == 0
            elif step[0] in ("remount", "lose cache", "crash"):
                if step[0] == "crash":
                    backend._held.close()  # its locks and files; nothing is uploaded, nothing said
                else:
                    await backend.close()
                cache = next(caches) if step[0] == "lose cache" else cache
                backend, root = await opened(cache)
            else:
                uploads.start_soon(backend.drain)  # while the step is done
                fill = bytes([65 + number])
                expected, got = await change(reference, top, step, fill), await change(backend, root, step, fill)
                assert got is expected, step
        assert await tree(backend, root) == await tree(reference, top), step
    store.failures = []
    seen = await tree(reference, top)
    assert await backend.drain() == 0
    sizes = [len(content) for mode, content in seen.values() if content is not None]
    assert backend.load_usage() == Usage(sum(sizes), len(seen))
    assert await count_objects(store, {}, lambda _: None) == Usage(sum(sizes), len(seen))
    await backend.close()
    backend, root = await opened(next(caches))
    assert await tree(backend, root) == seen
    await backend.close()


@settings(
    max_examples=int(os.environ.get("VOLGATE_MODEL_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(STEPS)
def test_objects_are_seen_as_the_reference_has_files(steps):
    with tempfile.TemporaryDirectory() as folder:
        trio.run(play, steps, Path(folder))
