"""What the block store answers is true, whatever happened to its disk and its process; and it keeps to its room."""

import errno
import functools
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from awscrt.checksums import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from volgate.cache import block_store
from volgate.cache.block_store import BLOCK_BYTES, HEAD_BYTES, SEGMENT_BYTES, WORDS_AT, BlockStore
from volgate.core.object_version import ObjectVersion

PLENTY = 1 << 40
SIZES = (0, 1, 5000, BLOCK_BYTES, 3 * BLOCK_BYTES + 7, SEGMENT_BYTES + 2 * BLOCK_BYTES + 100)


@functools.lru_cache(maxsize=64)
def block_of(size, number):
    """Return a block of the only content that an object of this size has in these tests."""
    length = min(BLOCK_BYTES, size - number * BLOCK_BYTES)
    return random.Random(f"{size}/{number}").randbytes(length)


def content(size, start, end):
    """Return [start, end) of that content."""
    first = start // BLOCK_BYTES
    whole = b"".join(block_of(size, n) for n in range(first, -(-end // BLOCK_BYTES)))
    return whole[start - first * BLOCK_BYTES : end - first * BLOCK_BYTES]


def count_blocks(size):
    return -(-size // BLOCK_BYTES)


def put(store, version, first=0, count=None):
    """Write some blocks of a version, all from the first where no count is given."""
    start = first * BLOCK_BYTES
    end = version.size if count is None else min(start + count * BLOCK_BYTES, version.size)
    store.write(version, start, content(version.size, start, end))


def whole(store, version):
    """Return whether a version is cached whole; what is read is right."""
    found = store.read(version, 0, version.size)
    assert found in (None, content(version.size, 0, version.size))
    return found is not None


def disk_bytes(directory):
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(directory))


@contextmanager
def opened(directory, max_bytes=PLENTY, min_free_bytes=0):
    store = BlockStore(directory, max_bytes=max_bytes, min_free_bytes=min_free_bytes)
    store.open()
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(place):
    with opened(place / "blocks") as store:
        yield store


@pytest.fixture
def small_disk(place):
    """Return a function that mounts a file system of a type and size below the place and returns its directory."""
    mounts = []

    def make(kind, bytes_):
        directory = place / f"disk{len(mounts)}"
        directory.mkdir()
        if kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", f"size={bytes_}", "small", directory]
        else:
            image = place / f"{directory.name}.image"
            with image.open("wb") as file:
                file.truncate(bytes_)
            subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
            command = ["mount", "-o", "loop", image, directory]
        subprocess.run(command, check=True)
        mounts.append(directory)
        return directory

    yield make
    for directory in mounts:
        subprocess.run(["umount", "-l", directory], check=True)


# -- what is written is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_an_object_is_read_back_whole_and_in_any_part(store, size):
    version = ObjectVersion("a/b", "tag", size)
    assert store.missing(version, 0, size) == ([(0, size)] if size else [])
    put(store, version)
    assert store.missing(version, 0, size) == []
    assert whole(store, version)
    choose = random.Random(size)
    for _ in range(20):
        start = choose.randint(0, size)
        assert store.read(version, start, 200_000) == content(size, start, min(start + 200_000, size))


def test_a_part_is_read_and_the_rest_is_missing(store):
    version = ObjectVersion("k", "e", 10 * BLOCK_BYTES + 5)
    put(store, version, 2, 3)
    put(store, version, 10)
    assert store.read(version, 2 * BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 2) is not None
    assert store.read(version, 2 * BLOCK_BYTES - 1, 2) is None
    assert store.read(version, 5 * BLOCK_BYTES - 1, 2) is None
    assert store.missing(version, 0, version.size) == [
        (0, 2 * BLOCK_BYTES),
        (5 * BLOCK_BYTES, 10 * BLOCK_BYTES),
    ]
    assert store.missing(version, BLOCK_BYTES + 9, 2 * BLOCK_BYTES + 1) == [(BLOCK_BYTES, 2 * BLOCK_BYTES)]
    assert store.missing(version, 2 * BLOCK_BYTES, 5 * BLOCK_BYTES) == []


def test_missing_ranges_go_on_over_the_end_of_a_segment(store):
    version = ObjectVersion("k", "e", 2 * SEGMENT_BYTES)
    around = (SEGMENT_BYTES - BLOCK_BYTES, SEGMENT_BYTES + BLOCK_BYTES)
    assert store.missing(version, *around) == [around]
    start = around[0] - BLOCK_BYTES
    store.write(version, start, content(version.size, start, around[1]))
    assert store.missing(version, *around) == []
    assert store.read(version, around[0] + 3, BLOCK_BYTES) == content(
        version.size, around[0] + 3, around[0] + 3 + BLOCK_BYTES
    )


def test_versions_that_differ_in_one_thing_are_kept_apart(store):
    versions = [
        ObjectVersion("a/b", "c", 5000),
        ObjectVersion("a", "b/c", 5000),
        ObjectVersion("b", "a/c", 5000),
        ObjectVersion("a/b", "c", 5001),
    ]
    put(store, versions[0])
    assert [store.read(version, 0, 1) is None for version in versions] == [False, True, True, True]


@pytest.mark.parametrize(("offset", "length"), [(1, BLOCK_BYTES), (0, 100), (BLOCK_BYTES, BLOCK_BYTES), (0, 200_001)])
def test_what_is_no_whole_block_is_refused(store, offset, length):
    with pytest.raises(ValueError, match="no whole blocks"):
        store.write(ObjectVersion("k", "e", 200_000), offset, bytes(length))


def test_a_renamed_version_is_read_under_its_new_name_alone(store):
    old, new = (ObjectVersion(key, "e", SIZES[-1]) for key in ("old", "new"))
    put(store, old)
    put(store, new, 1, 1)
    before = store.statistics().cached_bytes
    store.rename(old, new)
    assert not whole(store, old)
    assert whole(store, new)
    assert store.statistics().cached_bytes == before - HEAD_BYTES - BLOCK_BYTES
    store.rename(new, new)
    assert whole(store, new)


def test_content_whose_checksum_is_zero_is_cached_too(store):
    version, data = ObjectVersion("k", "e", 4), b"\xab\x9b\xe0\x9b"
    assert crc32c(data) == 0
    store.write(version, 0, data)
    assert store.read(version, 0, 4) == data


def test_nobody_but_the_owner_may_read_what_is_cached(place, store):
    put(store, ObjectVersion("k", "e", 5000))
    (file,) = (place / "blocks").iterdir()
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_hits_and_misses_are_counted(store):
    version = ObjectVersion("k", "e", 5000)
    store.read(version, 0, 10)
    put(store, version)
    store.read(version, 0, 10)
    store.read(version, 10, 10)
    found = store.statistics()
    assert (found.hits, found.misses, found.max_bytes) == (2, 1, PLENTY)


def test_a_closed_store_neither_answers_nor_stores(place):
    version = ObjectVersion("k", "e", 5000)
    with opened(place / "blocks") as store:
        put(store, version)
    put(store, ObjectVersion("other", "e", 5000))
    assert store.read(version, 0, 10) is None
    with opened(place / "blocks") as store:
        assert whole(store, version)
        assert store.missing(ObjectVersion("other", "e", 5000), 0, 1) == [(0, 5000)]


# -- against a model --------------------------------------------------------------------------------------------------

versions = st.builds(ObjectVersion, st.sampled_from("abc"), st.just("e"), st.sampled_from(SIZES))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), versions, st.integers(0, 260), st.integers(1, 6)),
        st.tuples(st.just("read"), versions, st.integers(0, 260), st.integers(1, 6)),
        st.tuples(st.just("rename"), versions, st.sampled_from("abc")),
        st.tuples(st.just("forget"), versions),
        st.tuples(st.just("reopen")),
    ),
    max_size=30,
)


def run(directory, steps, max_bytes, check):
    """Run steps; ``check(store, cached)`` sees the store after each, and which blocks were written and not dropped."""
    cached: dict[ObjectVersion, set[int]] = {}
    store = BlockStore(directory, max_bytes=max_bytes, min_free_bytes=0)
    store.open()
    try:
        for step, *arguments in steps:
            version = arguments[0] if arguments else None
            blocks = range(count_blocks(version.size))[arguments[1] :][: arguments[2]] if len(arguments) == 3 else ()
            if step == "write" and blocks:
                put(store, version, blocks[0], len(blocks))
                cached.setdefault(version, set()).update(blocks)
            elif step == "read" and blocks:
                start, length = blocks[0] * BLOCK_BYTES + 1, len(blocks) * BLOCK_BYTES
                found = store.read(version, start, length)
                assert found in (None, content(version.size, start, min(start + length, version.size)))
            elif step == "rename":
                target = ObjectVersion(arguments[1], "e", version.size)
                store.rename(version, target)
                if target != version:
                    rename_in(cached, version, target)
            elif step == "forget":
                store.forget(version)
                cached.pop(version, None)
            elif step == "reopen":
                store.close()
                store = BlockStore(directory, max_bytes=max_bytes, min_free_bytes=0)
                store.open()
            check(store, cached)
    finally:
        store.close()


def rename_in(cached, old, new):
    """Do in the model what ``rename`` does: a segment of the new version gives way where the old one has it."""
    per_segment = SEGMENT_BYTES // BLOCK_BYTES
    moved = cached.pop(old, set())
    segments = {block // per_segment for block in moved}
    kept = {block for block in cached.get(new, ()) if block // per_segment not in segments}
    cached[new] = kept | moved


def present(store, version):
    """Return the blocks of a version that the store says are cached."""
    blocks = set(range(count_blocks(version.size)))
    for start, end in store.missing(version, 0, version.size):
        blocks -= set(range(start // BLOCK_BYTES, count_blocks(end)))
    return blocks


@given(steps=steps)
@settings(max_examples=60, deadline=None)
def test_with_room_everything_written_stays_until_it_is_dropped(tmp_path_factory, steps):
    directory = tmp_path_factory.mktemp("blocks")

    def check(store, cached):
        for version, blocks in cached.items():
            assert present(store, version) == blocks
            for block in sorted(blocks)[:3]:
                assert store.read(version, block * BLOCK_BYTES, BLOCK_BYTES) == block_of(version.size, block)
        found = store.statistics()
        assert (found.evicted_bytes, found.damaged_blocks, found.write_errors) == (0, 0, 0)
        assert found.cached_bytes == disk_bytes(directory)

    run(directory, steps, PLENTY, check)


@given(steps=steps, max_bytes=st.integers(0, 12 * BLOCK_BYTES))
@settings(max_examples=60, deadline=None)
def test_with_little_room_it_is_never_exceeded_and_what_is_there_is_right(tmp_path_factory, steps, max_bytes):
    directory = tmp_path_factory.mktemp("blocks")

    def check(store, cached):
        for version in cached:
            blocks = present(store, version)
            assert blocks <= cached[version]
            for block in blocks:
                assert store.read(version, block * BLOCK_BYTES, BLOCK_BYTES) == block_of(version.size, block)
        found = store.statistics()
        assert (found.damaged_blocks, found.write_errors) == (0, 0)
        assert found.cached_bytes == disk_bytes(directory) <= max_bytes

    run(directory, steps, max_bytes, check)


# -- room -------------------------------------------------------------------------------------------------------------


def test_what_was_read_last_is_evicted_last(place):
    versions = [ObjectVersion(f"k{n}", "e", BLOCK_BYTES) for n in range(4)]
    with opened(place / "blocks", max_bytes=3 * (BLOCK_BYTES + HEAD_BYTES)) as store:
        for version in versions[:3]:
            put(store, version)
        assert whole(store, versions[0])
        put(store, versions[3])
        assert [whole(store, version) for version in versions] == [True, False, True, True]
        assert store.statistics().evicted_bytes == BLOCK_BYTES + HEAD_BYTES


def test_the_order_of_use_is_known_after_reopening(place):
    versions = [ObjectVersion(f"k{n}", "e", BLOCK_BYTES) for n in range(3)]
    with opened(place / "blocks") as store:
        for age, version in enumerate(versions):
            put(store, version)
            newest = max((place / "blocks").iterdir(), key=lambda path: path.stat().st_ctime_ns)
            os.utime(newest, (1000 - age, 1000 - age))
    with opened(place / "blocks", max_bytes=2 * (BLOCK_BYTES + HEAD_BYTES)) as store:
        assert [whole(store, version) for version in versions] == [True, True, False]


def test_few_files_are_open_however_many_are_cached(store):
    versions = [ObjectVersion(f"k{n}", "e", 10) for n in range(400)]
    before = len(os.listdir("/proc/self/fd"))
    for version in versions:
        put(store, version)
    assert all(whole(store, version) for version in versions)
    assert len(os.listdir("/proc/self/fd")) <= before + 256
    for version in versions:
        store.forget(version)
    assert len(os.listdir("/proc/self/fd")) == before
    assert store.statistics().cached_bytes == 0


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_ends_no_write_in_an_error_and_caching_goes_on_when_there_is_room(small_disk, kind):
    directory = small_disk(kind, 16 << 20)
    version = ObjectVersion("k", "e", SEGMENT_BYTES)
    with opened(directory / "blocks") as store:
        (directory / "other").write_bytes(bytes(4 << 20))
        for first in range(0, 200, 4):
            put(store, version, first, 4)
        found = store.statistics()
        assert found.write_errors + found.evicted_bytes > 0
        for block in present(store, version):
            assert store.read(version, block * BLOCK_BYTES, BLOCK_BYTES) == block_of(version.size, block)
        (directory / "other").unlink()
        put(store, version, 0, 4)
        assert store.read(version, 0, 4 * BLOCK_BYTES) is not None


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_the_store_yields_when_others_fill_the_disk(small_disk, kind):
    directory, floor = small_disk(kind, 32 << 20), 4 << 20
    versions = [ObjectVersion(f"k{n}", "e", 1 << 20) for n in range(40)]

    def free():
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize

    with opened(directory / "blocks", min_free_bytes=floor) as store:
        for version in versions:
            put(store, version)
        assert store.statistics().write_errors == 0
        assert floor <= free() < floor + (3 << 20)
        assert whole(store, versions[-1])
        with (directory / "other").open("wb") as other, suppress(OSError):
            while free() > floor // 2:
                other.write(bytes(64 << 10))
                other.flush()
        put(store, versions[0])
        assert free() >= floor
        assert store.statistics().write_errors == 0


def test_a_disk_that_gives_space_back_late_does_not_cost_the_whole_cache(small_disk, monkeypatch):
    directory = small_disk("tmpfs", 96 << 20)
    with opened(directory / "blocks", min_free_bytes=30 << 20) as store:
        for number in range(60):
            put(store, ObjectVersion(f"k{number}", "e", 1 << 20))
        before = os.statvfs(directory)
        monkeypatch.setattr(os, "statvfs", lambda _: before)  # as btrfs answers until its next commit
        assert not store.give_way(20 << 20)
        evicted = store.statistics().evicted_bytes
        assert evicted > 0
        assert not store.give_way(20 << 20)
        assert store.statistics().evicted_bytes == evicted


def test_what_is_dropped_gives_its_space_back_while_somebody_reads_it(small_disk):
    directory, version = small_disk("tmpfs", 8 << 20), ObjectVersion("k", "e", 1 << 20)
    with opened(directory / "blocks") as store:
        free = os.statvfs(directory).f_bfree
        put(store, version)
        (file,) = (directory / "blocks").iterdir()
        with file.open("rb"):
            store.forget(version)
            assert os.statvfs(directory).f_bfree == free


def test_a_disk_that_others_filled_up_is_left_alone(small_disk):
    directory = small_disk("tmpfs", 8 << 20)
    (directory / "other").write_bytes(bytes(6 << 20))
    with opened(directory / "blocks", min_free_bytes=4 << 20) as store:
        for n in range(10):
            put(store, ObjectVersion(f"k{n}", "e", 5000))
        assert store.statistics().cached_bytes == 0
        assert store.statistics().write_errors == 0


# -- damage -----------------------------------------------------------------------------------------------------------

DAMAGED = ObjectVersion("k", "e", 3 * BLOCK_BYTES + 7)
FILE_BYTES = HEAD_BYTES + DAMAGED.size


def damage(directory, change):
    """Cache a version, let ``change`` act on its file, and see that all that is wrong is missing and heals."""
    with opened(directory) as store:
        put(store, DAMAGED)
    (file,) = directory.iterdir()
    change(file)
    with opened(directory) as store:
        for block in range(4):
            found = store.read(DAMAGED, block * BLOCK_BYTES, BLOCK_BYTES)
            assert found in (None, block_of(DAMAGED.size, block))
            assert (found is None) == (block not in present(store, DAMAGED))
        missing, counted = 4 - len(present(store, DAMAGED)), store.statistics().damaged_blocks
        for start, end in store.missing(DAMAGED, 0, DAMAGED.size):
            store.write(DAMAGED, start, content(DAMAGED.size, start, end))
        assert whole(store, DAMAGED)
        assert store.statistics().cached_bytes == disk_bytes(directory)
    return missing, counted


@given(
    at=st.one_of(st.integers(0, WORDS_AT + 15), st.integers(0, FILE_BYTES - 1)), bit=st.integers(0, 7)
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_costs_its_block_and_is_never_read(tmp_path_factory, at, bit):
    def flip(file):
        with file.open("r+b") as opened_file:
            opened_file.seek(at)
            byte = opened_file.read(1)[0]
            opened_file.seek(at)
            opened_file.write(bytes([byte ^ 1 << bit]))

    missing, counted = damage(tmp_path_factory.mktemp("blocks"), flip)
    if at < WORDS_AT:
        assert (missing, counted) == (4, 1)
    elif at < WORDS_AT + 16 or at >= HEAD_BYTES:
        assert (missing, counted) == (1, 1)
    else:
        assert (missing, counted) == (0, 0)


@given(length=st.one_of(st.integers(0, FILE_BYTES - 1), st.sampled_from([0, 15, 4095, 4096, FILE_BYTES - 7])))
@settings(max_examples=50, deadline=None)
def test_a_file_that_was_cut_costs_the_blocks_that_are_cut(tmp_path_factory, length):
    missing, _ = damage(tmp_path_factory.mktemp("blocks"), lambda file: os.truncate(file, length))
    assert missing == 4 - max(0, length - HEAD_BYTES) // BLOCK_BYTES


def test_a_file_that_vanished_is_missing(place):
    directory = place / "blocks"
    assert damage(directory, Path.unlink) == (4, 0)


def test_a_file_that_vanishes_from_an_open_store_is_missing(place):
    with opened(place / "blocks") as store:
        versions = [ObjectVersion(f"k{n}", "e", 10) for n in range(300)]
        for version in versions:
            put(store, version)
        for file in (place / "blocks").iterdir():
            file.unlink()
        assert not whole(store, versions[0])
        put(store, versions[0])
        assert whole(store, versions[0])


def test_a_disk_that_cannot_read_a_block_makes_it_missing(small_disk, place):
    directory = small_disk("ext4", 48 << 20)
    version = ObjectVersion("k", "e", SEGMENT_BYTES)
    with opened(directory / "blocks") as store:
        put(store, version)
    (file,) = (directory / "blocks").iterdir()
    with file.open("rb") as opened_file:
        os.fsync(opened_file.fileno())
        os.posix_fadvise(opened_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with opened(directory / "blocks") as store:
        assert store.read(version, 0, 10) is not None
        os.truncate(place / "disk0.image", 0)
        with file.open("rb") as opened_file, pytest.raises(OSError) as caught:
            os.pread(opened_file.fileno(), 4096, SEGMENT_BYTES // 2)
        assert caught.value.errno == errno.EIO
        assert store.read(version, 100 * BLOCK_BYTES, 2 * BLOCK_BYTES) is None
        assert store.statistics().damaged_blocks == 2
        assert store.missing(version, 99 * BLOCK_BYTES, 103 * BLOCK_BYTES) == [(100 * BLOCK_BYTES, 102 * BLOCK_BYTES)]


def test_files_of_another_format_are_left_alone_and_named(place, caplog):
    directory = place / "blocks"
    with opened(directory) as store:
        put(store, DAMAGED)
    (file,) = directory.iterdir()
    newer = file.with_suffix(".v2")
    newer.write_bytes(b"volgate blocks 2")
    with opened(directory, max_bytes=0) as store:
        assert store.statistics().cached_bytes == 0
    assert list(directory.iterdir()) == [newer]
    assert [(record.message, record.first) for record in caplog.records] == [
        ("files of another format are in the block cache and stay there", newer.name)
    ]


def test_without_a_free_descriptor_nothing_is_read_and_nothing_is_lost(place):
    with opened(place / "blocks") as store:
        put(store, DAMAGED)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with opened(place / "blocks") as store:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            assert store.read(DAMAGED, 0, 10) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert whole(store, DAMAGED)


# -- crashes and threads ----------------------------------------------------------------------------------------------

WRITER = """
import random, sys, threading
from pathlib import Path
from test_block_store import ObjectVersion, BlockStore, SIZES, count_blocks, put

store = BlockStore(Path(sys.argv[1]), max_bytes=64 << 20, min_free_bytes=0)
store.open()

def write(seed):
    choose = random.Random(seed)
    while True:
        version = ObjectVersion(choose.choice("abcdefgh"), "e", choose.choice(SIZES[1:]))
        step = choose.random()
        if step < 0.02:
            store.forget(version)
        elif step < 0.05:
            store.rename(version, ObjectVersion(choose.choice("abcdefgh"), "e", version.size))
        else:
            put(store, version, choose.randrange(count_blocks(version.size)), 3)

for n in range(2):
    threading.Thread(target=write, args=[f"{sys.argv[2]}/{n}"]).start()
print("writing", flush=True)
"""


def test_what_a_killed_process_left_is_right(place):
    cached = 0
    for turn in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, place / "blocks", str(turn)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            stdout=subprocess.PIPE,
        ) as writer:
            try:
                assert writer.stdout.readline() == b"writing\n"
                time.sleep(random.Random(turn).uniform(0.1, 0.5))
            finally:
                writer.send_signal(signal.SIGKILL)
        with opened(place / "blocks", max_bytes=64 << 20) as store:
            for size in SIZES[1:]:
                for key in "abcdefgh":
                    version = ObjectVersion(key, "e", size)
                    for block in present(store, version):
                        assert store.read(version, block * BLOCK_BYTES, BLOCK_BYTES) == block_of(size, block)
                        cached += 1
            assert store.statistics().damaged_blocks <= 2  # a file that was just being made, one a thread
            assert store.statistics().cached_bytes <= 64 << 20
    assert cached > 100


@pytest.mark.parametrize("open_files", [256, 2])
def test_readers_and_writers_at_once_see_nothing_but_the_truth(place, monkeypatch, open_files):
    monkeypatch.setattr(block_store, "_MAX_OPEN_FILES", open_files)
    max_bytes = 20 * BLOCK_BYTES
    sizes = (5000, 3 * BLOCK_BYTES + 7, 12 * BLOCK_BYTES)
    wrong: list[object] = []
    hits = [0, 0]
    written = threading.Event()

    def choose_blocks(choose):
        version = ObjectVersion(choose.choice("abcd"), "e", choose.choice(sizes))
        return version, choose.randrange(count_blocks(version.size)), choose.randint(1, 4)

    def read(number):
        choose = random.Random(f"reader {number}")
        while not written.is_set():
            version, first, count = choose_blocks(choose)
            start = first * BLOCK_BYTES
            end = min(start + count * BLOCK_BYTES, version.size)
            found = store.read(version, start, end - start)
            if found is not None:
                hits[number] += 1
                assert found == content(version.size, start, end)
            assert store.statistics().cached_bytes <= max_bytes

    def write(number):
        choose = random.Random(f"writer {number}")
        for _ in range(700):
            version, first, count = choose_blocks(choose)
            step = choose.random()
            if step < 0.05:
                store.forget(version)
            elif step < 0.1:
                store.rename(version, ObjectVersion(choose.choice("abcd"), "e", version.size))
            else:
                put(store, version, first, count)

    def guarded(act, number):
        try:
            act(number)
        except BaseException as error:
            wrong.append(error)

    before = len(os.listdir("/proc/self/fd"))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with opened(place / "blocks", max_bytes=max_bytes) as store:
            readers, writers = (
                [threading.Thread(target=guarded, args=(act, number)) for number in range(2)] for act in (read, write)
            )
            for thread in readers + writers:
                thread.start()
            for thread in writers:
                thread.join()
            written.set()
            for thread in readers:
                thread.join()
            assert wrong == []
            assert min(hits) > 0
            found = store.statistics()
            assert (found.damaged_blocks, found.write_errors) == (0, 0)
            assert found.cached_bytes == disk_bytes(place / "blocks")
    finally:
        sys.setswitchinterval(interval)
    assert len(os.listdir("/proc/self/fd")) == before
