"""The journal: nothing synced is lost, nothing done comes back, whatever the disk or a crash does."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import trio
import trio.testing

from volgate.cache import journal as journal_module
from volgate.cache.journal import Journal
from volgate.core import journal_codec as codec
from volgate.core.object_metadata import StoredAttributes
from volgate.core.pending import DoneEntry, PendingContent, PendingEntry
from volgate.dto import Usage
from volgate.errors import InputOutput, InvalidArgument, NoSpace, NotFound, Unsupported

UUID = "00112233-4455-6677-8899-aabbccddeeff"
OTHER_UUID = "ffeeddcc-bbaa-9988-7766-554433221100"
SMALL = 8192
"""Bytes of a segment in tests that want many."""
ZERO = Usage(0, 0)


def entry(key, inline=b"", **changes):
    content = PendingContent(
        7, StoredAttributes(mode=0o100644), len(inline), None, 0, (), None, inline, False, {}, "text/plain"
    )
    return PendingEntry(
        **{
            "key": key,
            "remote_etag": None,
            "content": content,
            "since": 1.5,
            "commit_id": "",
            "refused": "",
            **changes,
        }
    )


def open_journal(directory, **how):
    return Journal.open(directory, UUID, **how)


def append(journal, *entries, usage=ZERO, relative=ZERO):
    return journal.append(entries, usage, relative)


def sync(journal, sequence):
    trio.run(journal.sync, sequence)


def state_of(directory, **how):
    """Return what a journal holds and the damage it names, as the next start finds them."""
    journal = open_journal(directory, **how)
    try:
        return dict(journal.pending), journal.damaged
    finally:
        journal.close()


def segments_of(directory):
    return sorted(directory.glob("journal-*.log"), key=lambda path: int(path.stem.split("-")[1]))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def memory():
    """Return a directory on tmpfs, for thousands of replays, the syncs of which would take their time."""
    path = Path(tempfile.mkdtemp(prefix="volgate-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def written(directory):
    """Return a directory with one segment of five records, and the offsets where they end."""
    journal = open_journal(directory)
    (path,) = segments_of(directory)
    ends = [path.stat().st_size]
    for number in range(5):
        append(journal, entry(f"k{number}", bytes([65 + number]) * 20), usage=Usage(number, 1))
        ends.append(path.stat().st_size)
    journal.close()
    return directory, ends


# -- what it keeps ----------------------------------------------------------------------------------------------


def test_the_last_entry_of_each_key_is_found_again(directory):
    journal = open_journal(directory)
    assert (dict(journal.pending), journal.usage, journal.relative) == ({}, None, ZERO)
    append(journal, entry("a", b"1"), entry("b", b"2"))
    append(journal, entry("a", content=None, remote_etag='"e"'), DoneEntry("b"), usage=None)
    append(journal, entry("c", b"3", refused="AccessDenied"), usage=Usage(3, 1), relative=Usage(-5, -2))
    journal.close()
    again = open_journal(directory)
    assert dict(again.pending) == {
        "a": entry("a", content=None, remote_etag='"e"'),
        "c": entry("c", b"3", refused="AccessDenied"),
    }
    assert (again.usage, again.relative, again.damaged) == (Usage(3, 1), Usage(-5, -2), ())
    append(again, DoneEntry("a"), DoneEntry("c"), usage=None)
    again.close()
    third = open_journal(directory)
    assert (dict(third.pending), third.usage) == ({}, None)
    third.close()


def test_inline_content_is_read_from_the_disk_and_verified(directory):
    journal = open_journal(directory)
    append(journal, entry("a", b"old"), entry("b", b"y" * 70_000))
    append(journal, entry("a", b"new content"), entry("deleted", content=None))
    assert journal.read_inline("a") == b"new content"
    assert journal.read_inline("b") == b"y" * 70_000
    assert journal.read_inline("deleted") == b""
    with pytest.raises(NotFound):
        journal.read_inline("none")
    (path,) = segments_of(directory)
    flip(path, path.read_bytes().index(b"new content"))
    with pytest.raises(InputOutput):
        journal.read_inline("a")
    journal.close()


def test_a_newer_format_is_refused_and_left_as_it_is(written):
    directory, ends = written
    (path,) = segments_of(directory)
    newer = codec._HEADER.pack(
        codec._HEADER_MAGIC, codec.FORMAT_VERSION + 1, bytes.fromhex(UUID.replace("-", "")), 2, 0
    )
    newer = newer[:-4] + codec.crc32c(newer[:-4]).to_bytes(4, "little")
    (directory / "journal-2.log").write_bytes(newer + b"what nobody knows yet")
    path.write_bytes(path.read_bytes()[: ends[-1] - 1])
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(Unsupported, match="upgrade"):
        open_journal(directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_another_volumes_journal_is_refused_and_left_as_it_is(written):
    directory, _ = written
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(InvalidArgument):
        Journal.open(directory, OTHER_UUID)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


# -- torn and damaged -------------------------------------------------------------------------------------------


def test_a_tail_torn_at_any_byte_is_cut_off_in_silence(written, memory):
    directory, ends = written
    data = segments_of(directory)[0].read_bytes()
    for length in range(len(data)):
        torn = memory / "torn"
        torn.mkdir()
        (torn / "journal-1.log").write_bytes(data[:length])
        journal = open_journal(torn)
        whole = sum(end <= length for end in ends[1:])
        assert list(journal.pending) == [f"k{number}" for number in range(whole)], length
        assert journal.damaged == ()
        sequence = append(journal, entry("new", b"after the cut"))
        sync(journal, sequence)
        journal.close()
        pending, damaged = state_of(torn)
        assert (list(pending), damaged) == ([*(f"k{number}" for number in range(whole)), "new"], ())
        shutil.rmtree(torn)


def test_a_tail_of_zeros_is_cut_off_in_silence(written):
    """As a power cut leaves it where the file's size reached the disk before its data."""
    directory, ends = written
    (path,) = segments_of(directory)
    path.write_bytes(path.read_bytes()[: ends[-2]] + bytes(ends[-1] - ends[-2]))
    pending, damaged = state_of(directory)
    assert (len(pending), damaged) == (4, ())
    assert path.stat().st_size == ends[-2]


def test_a_flipped_bit_anywhere_is_named_and_costs_its_own_record(written, memory):
    directory, ends = written
    data = segments_of(directory)[0].read_bytes()
    for at in range(len(data)):
        damaged_directory = memory / "flipped"
        damaged_directory.mkdir()
        path = damaged_directory / "journal-1.log"
        path.write_bytes(data)
        flip(path, at)
        flipped = path.read_bytes()
        pending, damaged = state_of(damaged_directory)
        hit = sum(end <= at for end in ends) - 1  # -1: the header, or the first record, which has the usage only
        expected = {f"k{number}": entry(f"k{number}", bytes([65 + number]) * 20) for number in range(5)}
        expected.pop(f"k{hit}", None)
        assert pending == expected, at
        kept = {path.name: path.read_bytes() for path in damaged_directory.glob("damaged-*")}
        if hit == 4:
            assert (damaged, kept) == ((), {}), "the last record is a torn one"
        else:
            start, end = (ends[hit], ends[hit + 1]) if hit >= 0 else (0, codec.HEADER_BYTES)
            start, end = (codec.HEADER_BYTES, ends[0]) if codec.HEADER_BYTES <= at < ends[0] else (start, end)
            assert len(damaged) == 1 and damaged[0].startswith(f"journal-1.log, offset {start}: {end - start} bytes")
            assert kept == {f"damaged-1-{start}": flipped[start:end]}
            assert path.read_bytes() == flipped
        shutil.rmtree(damaged_directory)


def test_the_keys_of_a_damaged_record_are_named_and_it_counts_not_even_in_part(directory):
    journal = open_journal(directory)
    append(journal, entry("from", b"content"))
    append(journal, entry("from", content=None), entry("to", b"content that moves"))
    append(journal, entry("later", b"x"))
    journal.close()
    (path,) = segments_of(directory)
    flip(path, path.read_bytes().index(b"content that moves"))
    pending, damaged = state_of(directory)
    assert pending == {"from": entry("from", b"content"), "later": entry("later", b"x")}
    assert len(damaged) == 1
    assert damaged[0].endswith("keys 'from', 'to'")


def test_a_lost_segment_is_named(directory):
    journal = open_journal(directory, segment_bytes=SMALL)
    for number in range(60):
        append(journal, entry(f"k{number}", b"x" * 300))
    journal.close()
    first, second, *_ = segments_of(directory)
    second.unlink()
    pending, damaged = state_of(directory)
    assert len(damaged) == 1 and "records before it are missing" in damaged[0]
    assert 0 < len(pending) < 60
    first.unlink()
    _, damaged = state_of(directory)
    assert len(damaged) == 1 and "segments before journal-3.log are missing" in damaged[0]


def test_a_block_that_the_disk_does_not_give_costs_its_records_only(directory):
    """The read of the whole file fails, then every second block of it: the second, the fourth and so on."""
    journal = open_journal(directory)
    for number in range(30):
        append(journal, entry(f"k{number}", b"x" * 600))
    expected = {
        key
        for key, place in journal._live.places.items()
        if all(at // 4096 % 2 == 0 for at in (place.offset - codec.EMPTY_RECORD_BYTES, place.offset + place.length))
    }
    journal.close()
    (path,) = segments_of(directory)
    inject = ("strace", "-qq", "-o", "/dev/null", "-P", str(path), "--inject=pread64:error=EIO:when=2+2")
    script = f"""
        from pathlib import Path
        from volgate.cache.journal import Journal
        journal = Journal.open(Path({str(directory)!r}), {UUID!r})
        print(len(journal.damaged), *journal._live.places)
    """
    done = subprocess.run(
        [*inject, sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, text=True
    )
    damages, *keys = done.stdout.split()
    assert set(keys) == expected
    assert int(damages) == len(list(directory.glob("damaged-*"))) >= 3
    assert 10 < len(expected) < 20
    assert len(state_of(directory)[0]) == 30, "nothing was cut off"


# -- moving on --------------------------------------------------------------------------------------------------


def churn(journal, keys, rounds, model, seed=1):
    """Change a journal and the model of it, syncing now and then."""
    numbers = random.Random(seed)
    sequence = 0
    for step in range(rounds):
        key = f"k{numbers.randrange(keys)}"
        if numbers.random() < 0.3:
            sequence = append(journal, DoneEntry(key), usage=Usage(step, step))
            model.pop(key, None)
        else:
            model[key] = entry(key, numbers.randbytes(numbers.randrange(400)))
            sequence = append(journal, model[key], usage=Usage(step, step))
        if step % 7 == 0:
            sync(journal, sequence)
    sync(journal, sequence)


def test_the_log_stays_in_proportion_to_what_lives(directory):
    journal = open_journal(directory, segment_bytes=SMALL)
    model = {"static": entry("static", b"s" * 1000)}
    append(journal, model["static"])
    for round_ in range(6):
        churn(journal, 20, 400, model, seed=round_)
        statistics = journal.statistics()
        assert statistics.bytes_ <= 2 * statistics.live_bytes + 4 * SMALL
        assert statistics.bytes_ == sum(path.stat().st_size for path in segments_of(directory))
        assert dict(journal.pending) == model
    assert statistics.live_bytes > 0
    journal.close()
    again = open_journal(directory, segment_bytes=SMALL)
    assert (dict(again.pending), again.damaged, again.usage) == (model, (), Usage(399, 399))
    again.close()


def test_a_journal_in_which_nothing_is_pending_shrinks_and_keeps_the_usage(directory):
    journal = open_journal(directory, segment_bytes=SMALL)
    for number in range(200):
        append(journal, entry(f"k{number}", b"x" * 300))
        sync(journal, append(journal, DoneEntry(f"k{number}"), usage=Usage(number, -1), relative=Usage(-number, 0)))
    assert journal.statistics().bytes_ < 3 * SMALL
    journal.close()
    again = open_journal(directory)
    assert (dict(again.pending), again.usage, again.relative) == ({}, Usage(199, -1), Usage(-199, 0))
    again.close()


class CrashRecorder:
    """Keeps what a crash after each system call would leave of a directory.

    ``killed``: all that was written, as after SIGKILL. ``cut``: as the meanest disk leaves it after a power cut: of
    files what was synced, new names if their directory was synced since, but unlinks at once. ``mixed``: of each file
    either of them. ``holed``: of what was not synced the last record only.
    """

    CALLS = ("pwrite", "ftruncate", "fdatasync", "fsync", "unlink")

    def __init__(self, directory, place, monkeypatch):
        self.directory, self.place = directory, place
        self.synced = {path.name: path.read_bytes() for path in self.files()}
        self.names = set(self.synced)
        self.images = []
        self.acknowledged = (0, {})
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self.recording(getattr(os, name)))

    def recording(self, call):
        def recorded(*args, **kwargs):
            if call.__name__ not in ("fdatasync", "fsync"):
                result = call(*args, **kwargs)
                self.keep()
                return result
            path = Path(os.readlink(f"/proc/self/fd/{args[0]}"))
            names = {found.name for found in self.files()}
            data = b"" if path == self.directory else path.read_bytes()
            call(*args, **kwargs)
            if path == self.directory:
                self.names = names
            else:
                self.synced[path.name] = data
            return self.keep()

        return recorded

    def files(self):
        return [path for path in self.directory.iterdir() if path.name.startswith("journal-")]

    def keep(self):
        now = {path.name: path.read_bytes() for path in self.files()}
        synced = {name: self.synced.get(name, b"") for name in now}
        cut = {name: synced[name] for name in now if name in self.names}
        mixed = {name: now[name] if number % 2 else synced[name] for number, name in enumerate(sorted(now))}
        holed = {}
        for name, data in now.items():
            whole = max(len(synced[name]), len(data) - codec.EMPTY_RECORD_BYTES)
            holed[name] = synced[name] + bytes(whole - len(synced[name])) + data[whole:]
        self.images.append((self.acknowledged, now, cut, mixed, holed))

    def replayed(self, image):
        place = self.place / "image"
        place.mkdir()
        for name, data in image.items():
            (place / name).write_bytes(data)
        try:
            journal = open_journal(place, segment_bytes=SMALL)
            found = dict(journal.pending), journal.usage, journal.damaged
            journal.close()
            return found
        finally:
            shutil.rmtree(place)


async def live(journal, recorder, fail):
    """Append, also while a sync is under way; returns each key's entries with the steps that wrote them."""
    numbers = random.Random(3)
    current, history = {}, {}

    def change(step):
        key = f"k{numbers.randrange(6)}" if step > 1 else "static"
        found = None if numbers.random() < 0.2 and step > 1 else entry(key, b"%d " % step + bytes(400))
        current[key] = (step, found)
        history.setdefault(key, []).append((step, found))
        return append(journal, found or DoneEntry(key), usage=Usage(step, 0))

    for step in range(1, 160, 5):
        if fail is not None:
            fail(step)
        sequences = [change(step), change(step + 1), change(step + 2)]
        acknowledged = (step + 2, dict(current))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.sync, sequences[-1])
            await trio.testing.wait_all_tasks_blocked()
            change(step + 3)
            change(step + 4)
        recorder.acknowledged = acknowledged
    return history


def crash_anywhere(memory, monkeypatch, fail=None):
    """Run a life in which segments come and go, and replay it from after each of its system calls.

    What is found of a key must be as new as what was acknowledged: so nothing that was done comes back either.
    """
    journal = open_journal(memory / "journal", segment_bytes=SMALL)
    with monkeypatch.context() as patch:
        recorder = CrashRecorder(memory / "journal", memory, patch)
        history = trio.run(live, journal, recorder, fail)
    journal.close()
    for (step, expected), *images in recorder.images:
        for index, image in enumerate(images):
            pending, usage, damaged = recorder.replayed(image)
            assert step == 0 or usage.bytes_ >= step
            for key, (since, _) in expected.items():
                allowed = [found for number, found in history[key] if number >= since]
                assert pending.get(key) in allowed, (step, index, key)
            if index < 2 and fail is None:
                assert damaged == (), (step, index)
    return recorder


def test_a_crash_after_any_system_call_loses_nothing_synced(memory, monkeypatch):
    recorder = crash_anywhere(memory, monkeypatch)
    names = {name for _, now, *_ in recorder.images for name in now}
    gone = names - {path.name for path in recorder.files()}
    assert len(gone) >= 3, "segments came and went"


def test_a_crash_while_a_failed_segment_is_written_anew_loses_nothing_synced(memory, monkeypatch):
    """fdatasync fails twice, and the failed pages never reach the disk, whatever it says later."""
    broken = set()
    failing = [None]
    real = os.fdatasync

    def fdatasync(fd):
        path = os.readlink(f"/proc/self/fd/{fd}")
        if failing[0] is not None or path in broken:
            broken.add(path)
            failing[0] = None
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)

    def fail(step):
        if step in (46, 91):
            failing[0] = True

    crash_anywhere(memory, monkeypatch, fail)
    assert len(broken) == 2
    assert not any(Path(path).exists() for path in broken)


# -- a disk that is full or fails -------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path):
    """Return a file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_refuses_an_append_and_takes_it_once_there_is_room(tiny_disk):
    directory = tiny_disk / "journal"
    journal = open_journal(directory, segment_bytes=32768)
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    accepted = {}
    with pytest.raises(NoSpace):
        for number in range(1000):
            new = entry(f"k{number}", bytes([number]) * 3000)
            append(journal, new, usage=Usage(number, 0))
            accepted[f"k{number}"] = new
    assert 20 < len(accepted) < 60
    assert journal.usage == Usage(len(accepted) - 1, 0)
    with pytest.raises(NoSpace):
        append(journal, entry("another", b"z" * 3000))
    assert dict(journal.pending) == accepted
    journal.close()
    journal = open_journal(directory, segment_bytes=32768)
    assert (dict(journal.pending), journal.damaged) == (accepted, ()), "it opens on a full disk"
    ballast.unlink()
    accepted["more"] = entry("more", b"m" * 3000)
    sync(journal, append(journal, accepted["more"]))
    journal.close()
    assert state_of(directory) == (accepted, ())


def test_a_file_size_limit_counts_as_a_full_disk(directory):
    script = """
        import resource, sys
        from pathlib import Path
        from volgate.cache.journal import Journal
        from volgate.core.pending import DoneEntry
        from volgate.dto import Usage
        from volgate.errors import NoSpace
        journal = Journal.open(Path(sys.argv[1]), sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        for number in range(1000):
            try:
                journal.append([DoneEntry(f"k{number}")], Usage(number, 0), Usage(0, 0))
            except NoSpace:
                print(number)
                break
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), directory, UUID], check=True, capture_output=True, text=True
    )
    journal = open_journal(directory)
    assert (journal.usage, journal.damaged) == (Usage(int(done.stdout) - 1, 0), ())
    journal.close()


WRITER = """
    import sys, trio
    from pathlib import Path
    from volgate.cache.journal import Journal
    from volgate.core.object_metadata import StoredAttributes
    from volgate.core.pending import PendingContent, PendingEntry
    from volgate.dto import Usage
    from volgate.errors import StorageException

    def entry(key, inline):
        content = PendingContent(1, StoredAttributes(), len(inline), None, 0, (), None, inline, False, {}, "")
        return PendingEntry(key, None, content, 0.0, "", "")

    async def main(directory, uuid, rounds):
        journal = Journal.open(Path(directory), uuid, segment_bytes=65536)
        for number in range(rounds):
            try:
                key = f"k{number % 50}"
                sequence = journal.append([entry(key, b"%d" % number + bytes(500))], Usage(number, 0), Usage(0, 0))
                await journal.sync(sequence)
                print(number, flush=True)
            except StorageException as error:
                print(type(error).__name__, flush=True)

    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def writer(directory, rounds, *before):
    return [*before, sys.executable, "-c", textwrap.dedent(WRITER), str(directory), UUID, str(rounds)]


def test_an_error_of_the_disk_at_a_sync_is_survived_in_a_new_segment(directory):
    """The fourth fdatasync of the thread fails (strace counts by thread): three records are synced by then."""
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "--inject=fdatasync:error=EIO:when=4")
    done = subprocess.run(writer(directory, 20, *inject), capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(number) for number in range(20)]
    assert [path.name for path in segments_of(directory)] == ["journal-2.log"]
    pending, damaged = state_of(directory)
    assert (len(pending), damaged) == (20, ())


def test_where_the_new_segment_fails_too_nothing_is_believed_any_more(directory):
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "--inject=fdatasync:error=EIO:when=4+")
    done = subprocess.run(writer(directory, 6, *inject), capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", "1", "2", *["InputOutput"] * 3]
    pending, _ = state_of(directory)
    assert {"k0", "k1", "k2"} <= set(pending)


def test_an_error_at_the_sync_of_the_start_is_survived_in_a_new_segment(written):
    directory, _ = written
    before, _ = state_of(directory)
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "--inject=fdatasync:error=EIO:when=1")
    subprocess.run(writer(directory, 0, *inject), check=True, timeout=60)
    assert [path.name for path in segments_of(directory)] == ["journal-2.log"]
    assert state_of(directory) == (before, ())


def test_all_waiters_of_a_failed_sync_are_told(directory, monkeypatch):
    journal = open_journal(directory)

    def failing(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    refused = []

    async def close_a_file(number):
        try:
            await journal.sync(append(journal, entry(f"k{number}")))
        except InputOutput:
            refused.append(number)

    async def main():
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(close_a_file, number)

    monkeypatch.setattr(os, "fdatasync", failing)
    trio.run(main)
    assert sorted(refused) == list(range(10))
    with pytest.raises(InputOutput):
        append(journal, entry("k"))
    journal.close()


@pytest.mark.parametrize("reports", [1, 30, 200, 777])
def test_all_that_was_synced_is_there_after_kill_9(directory, reports):
    process = subprocess.Popen(writer(directory, 10**6), stdout=subprocess.PIPE, text=True)
    reported = [int(process.stdout.readline())]
    while len(reported) < reports:
        reported.append(int(process.stdout.readline()))
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    reported += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    journal = open_journal(directory)
    last = reported[-1]
    assert journal.usage.bytes_ in (last, last + 1)
    newest = {number % 50: number for number in range(last + 1)}
    for place, number in newest.items():
        found = int(journal.read_inline(f"k{place}").split(b"\0")[0])
        assert found == number or (found == last + 1 and found % 50 == place)
    assert journal.damaged == ()
    journal.close()


# -- group commit -----------------------------------------------------------------------------------------------


def test_a_hundred_files_closed_at_once_share_their_syncs(directory):
    journal = open_journal(directory)

    async def close_a_file(number):
        await journal.sync(append(journal, entry(f"k{number}", b"x")))

    async def main():
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(close_a_file, number)

    trio.run(main)
    statistics = journal.statistics()
    assert (statistics.appends, statistics.syncs) == (100, 2)
    journal.close()


def test_what_is_durable_already_needs_no_checkpoint(directory):
    journal = open_journal(directory)
    first = append(journal, entry("a"))
    second = append(journal, entry("b"))

    async def main():
        await journal.sync(second)
        with trio.testing.assert_no_checkpoints():
            await journal.sync(first)

    trio.run(main)
    assert journal.statistics().syncs == 1
    journal.close()


def test_a_cancelled_sync_leaves_the_others_theirs(directory):
    journal = open_journal(directory)
    done = []

    async def close_a_file(number):
        await journal.sync(append(journal, entry(f"k{number}")))
        done.append(number)

    async def cancelled():
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.sync(append(journal, entry("cancelled")))

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancelled)
            for number in range(5):
                nursery.start_soon(close_a_file, number)
                nursery.start_soon(cancelled)

    trio.run(main)
    assert sorted(done) == list(range(5))
    journal.close()


def test_the_thread_is_given_descriptors_only(directory, monkeypatch):
    journal = open_journal(directory)
    seen = []
    real = journal_module._make_durable
    monkeypatch.setattr(journal_module, "_make_durable", lambda *args: (seen.append(args), real(*args)))
    sync(journal, append(journal, entry("a")))
    ((files, changed),) = seen
    assert all(isinstance(fd, int) for fd in files)
    assert changed is None, "no segment was made since"
    journal.close()
