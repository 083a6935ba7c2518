"""The slot file: what it says after a crash at any store, and after a real SIGKILL."""

import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volgate.dto import Usage
from volgate.errors import Unsupported
from volgate.ledger.slots import FORMAT_VERSION, HEAD_BYTES, SLOT_BYTES, SLOTS, SlotFile

UUID = bytes(range(16))
IMAGE_BYTES = HEAD_BYTES + 8 * SLOT_BYTES
"""The head and the slots that are used first."""


class RecordingWords:
    """A view of words that keeps an image of the file after each store: a crash can be replayed at any of them."""

    def __init__(self, words, view):
        self.words = words
        self.view = view
        self.images = [bytes(view[:IMAGE_BYTES])]

    def __getitem__(self, index):
        return self.words[index]

    def __setitem__(self, index, value):
        self.words[index] = value
        self.images.append(bytes(self.view[:IMAGE_BYTES]))

    def release(self):
        self.words.release()


def usage_of(path, measured):
    """Return settled + sum(measured - charged), as the ledger does."""
    slots = SlotFile(path)
    settled, found = slots.load()
    used_bytes = settled.bytes_ + sum(measured[key].bytes_ - charged.bytes_ for key, charged in found)
    inodes = settled.inodes + sum(measured[key].inodes - charged.inodes for key, charged in found)
    slots.close()
    return Usage(used_bytes, inodes)


steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1000)), max_size=12)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_usage_is_exact_after_a_crash_between_any_two_stores(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("slots") / "slots"
    slots = SlotFile(path)
    slots.begin(UUID, 1, Usage(100, 10))
    slots._words = recorder = RecordingWords(slots._words, slots._bytes)
    counts = {}  # what each inode counts, as the backing has it
    opened = {}
    truth = [(0, Usage(100, 10), {})]  # at which image: usage, and what can be measured
    total = Usage(100, 10)
    for inode, size in steps:
        key = b"inode %d" % inode
        if inode not in opened:
            opened[inode] = slots.open_slot(key, counts.get(inode, Usage(0, 0)))
        else:
            old, new = counts.get(inode, Usage(0, 0)), Usage(size, 1)
            counts[inode] = new  # the change on the backing, while the slot is open
            total = Usage(total.bytes_ + new.bytes_ - old.bytes_, total.inodes + new.inodes - old.inodes)
            truth.append((len(recorder.images), total, dict(counts)))
            slots.close_slot(opened.pop(inode), new)
    images = recorder.images
    slots.close()
    for moment, image in enumerate(images):
        path.write_bytes(image)
        _, expected, measured = [entry for entry in truth if entry[0] <= moment][-1]
        measurable = {b"inode %d" % inode: measured.get(inode, Usage(0, 0)) for inode in range(4)}
        assert usage_of(path, measurable) == expected


def test_more_changing_inodes_than_slots_mean_a_recount(tmp_path):
    slots = SlotFile(tmp_path / "slots")
    slots.begin(UUID, 1, Usage(0, 0))
    opened = [slots.open_slot(b"%d" % number, Usage(0, 0)) for number in range(SLOTS + 5)]
    assert slots.overflowed()
    for slot in opened:
        slots.close_slot(slot, Usage(1, 1))
    assert not slots.overflowed()
    assert slots.settled() == Usage(SLOTS + 5, SLOTS + 5)
    slots.close()


def test_a_key_too_long_for_a_slot_means_a_recount(tmp_path):
    slots = SlotFile(tmp_path / "slots")
    slots.begin(UUID, 1, Usage(0, 0))
    slot = slots.open_slot(b"x" * 600, Usage(0, 0))
    assert slots.overflowed()
    slots.close_slot(slot, Usage(0, 0))
    slots.close()


def test_another_volume_or_epoch_does_not_match(tmp_path):
    slots = SlotFile(tmp_path / "slots")
    assert not slots.matches(UUID, 0)
    slots.begin(UUID, 7, Usage(0, 0))
    assert slots.matches(UUID, 7)
    assert not slots.matches(UUID, 8)
    assert not slots.matches(bytes(16), 7)
    slots.close()


def test_a_newer_format_is_refused(tmp_path):
    slots = SlotFile(tmp_path / "slots")
    slots.begin(UUID, 7, Usage(0, 0))
    slots._words[1] = FORMAT_VERSION + 1
    with pytest.raises(Unsupported, match="upgrade"):
        slots.matches(UUID, 7)
    slots.close()


HAMMER = """
    import os, sys
    from volgate.dto import Usage
    from volgate.ledger.slots import SlotFile
    slots = SlotFile(sys.argv[1])
    slots.begin(bytes(range(16)), 1, Usage(0, 0))
    files = [os.open(f"{sys.argv[2]}/{n}", os.O_RDWR | os.O_CREAT) for n in range(8)]
    sizes = [0] * 8
    opened = [None] * 8
    print("ready", flush=True)
    step = 0
    while True:
        step += 1
        n = step % 8
        if opened[n] is None:
            opened[n] = slots.open_slot(b"%d" % n, Usage(sizes[n], 0))
        sizes[n] = (sizes[n] * 7 + step) % 9973
        os.ftruncate(files[n], sizes[n])
        if step % 3:
            slots.close_slot(opened[n], Usage(sizes[n], 0))
            opened[n] = None
"""


@pytest.mark.parametrize("round_", range(5))
def test_usage_is_exact_after_sigkill_at_a_random_moment(tmp_path, round_):
    files = tmp_path / "files"
    files.mkdir()
    program = textwrap.dedent(HAMMER)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "slots"), str(files)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    try:
        process.wait(random.Random(round_).uniform(0.01, 0.1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    measured = {b"%d" % n: Usage(os.stat(files / str(n)).st_size, 0) for n in range(8)}
    assert usage_of(tmp_path / "slots", measured) == Usage(sum(m.bytes_ for m in measured.values()), 0)


def test_a_file_of_an_earlier_boot_does_not_match(tmp_path, monkeypatch):
    slots = SlotFile(tmp_path / "slots")
    slots.begin(UUID, 1, Usage(0, 0))
    slots.close()
    (tmp_path / "boot_id").write_text("11111111-2222-3333-4444-555555555555\n")
    monkeypatch.setattr("volgate.ledger.slots._BOOT_ID", str(tmp_path / "boot_id"))
    slots = SlotFile(tmp_path / "slots")
    assert not slots.matches(UUID, 1)
    slots.close()
