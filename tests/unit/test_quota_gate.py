"""The quota gate against a plain model: usage is the sum, and the gate never adds beyond the limit."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from volgate.dto import Usage
from volgate.errors import QuotaExceeded
from volgate.ledger.base import QuotaLedger
from volgate.volume.quota_gate import InodeCharge, QuotaGate

LIMIT, INODES = 1000, 5


class ModelLedger(QuotaLedger):
    """Keeps slots in a dict: what usage would be after a crash can be computed at any time."""

    def __init__(self):
        self.settled = [0, 0]
        self.slots = {}
        self.next = 0

    async def recover(self, measure_key):
        raise NotImplementedError

    def begin(self, usage):
        self.settled = [usage.bytes_, usage.inodes]

    def open_slot(self, key, charged):
        self.next += 1
        self.slots[self.next] = (key, charged)
        return self.next

    def close_slot(self, slot, counted):
        _, charged = self.slots.pop(slot)
        self.settled[0] += counted.bytes_ - charged.bytes_
        self.settled[1] += counted.inodes - charged.inodes

    def checkpoint(self):
        pass

    def close(self):
        assert not self.slots
        return "closed"


class GateMachine(RuleBasedStateMachine):
    """Files are a dict of name to size; open ones have a charge; writes may fail half-way."""

    def __init__(self):
        super().__init__()
        self.ledger = ModelLedger()
        self.gate = QuotaGate(
            self.ledger, Usage(0, 0), volume_id="v", backend_type="model", quota_bytes=LIMIT, quota_inodes=INODES
        )
        self.files = {}
        self.open = {}
        self.unlinked = {}

    names = st.sampled_from("abcdefg")

    @rule(name=names, created=st.booleans())
    def create(self, name, created):
        if name in self.files or name in self.unlinked:
            return
        try:
            change = self.gate.begin_create(name)
        except QuotaExceeded:
            assert len(self.files) + len(self.unlinked) >= INODES
            return
        if created:
            self.files[name] = 0
        self.gate.end_create(change, created=created)

    @rule(name=names)
    def open_file(self, name):
        if name in self.files and name not in self.open:
            self.open[name] = InodeCharge(name, self.files[name])

    @rule(name=names, offset=st.integers(0, 1200), length=st.integers(1, 600), written=st.integers(0, 600))
    def write(self, name, offset, length, written):
        charge = self.open.get(name)
        if charge is None:
            return
        sizes = self.files if name in self.files else self.unlinked
        end = offset + length
        if end <= charge.size:
            return
        before = sum(self.files.values()) + sum(self.unlinked.values())
        try:
            allowed = self.gate.reserve(charge, offset, end)
        except QuotaExceeded:
            assert before + offset + 1 - sizes[name] > LIMIT or before >= LIMIT
            return
        assert offset < allowed <= end
        assert allowed == end or before + allowed - sizes[name] == max(LIMIT, before)
        reached = offset + min(written, allowed - offset)
        if written:
            sizes[name] = max(sizes[name], reached)
        if reached == allowed and written:
            assert self.gate.settle(charge)
        else:
            assert not self.gate.fail(charge)
            self.gate.correct(charge, sizes[name])

    @rule(name=names, size=st.integers(0, 1000))
    def shrink(self, name, size):
        charge = self.open.get(name)
        if charge is not None and name in self.files and size < charge.size:
            self.gate.begin_shrink(charge)
            self.files[name] = size
            self.gate.correct(charge, size)

    @rule(name=names)
    def close_file(self, name):
        charge = self.open.pop(name, None)
        if charge is not None:
            gone = name in self.unlinked
            self.unlinked.pop(name, None)
            self.gate.release(charge, gone=gone)

    @rule(name=names, removed=st.booleans())
    def remove(self, name, removed):
        if name not in self.files:
            return
        if name in self.open:
            self.gate.hold_unlinked(self.open[name])
            if removed:
                self.unlinked[name] = self.files.pop(name)
            return
        change = self.gate.begin_remove(name, Usage(self.files[name], 1))
        if removed:
            del self.files[name]
        self.gate.end_remove(change, removed=removed)

    @rule(limit=st.integers(0, 1500))
    def set_limit(self, limit):
        self.gate.set_limits(limit, INODES)
        self.gate.set_limits(LIMIT, INODES)

    @invariant()
    def usage_is_the_sum(self):
        assert self.gate.used_bytes == sum(self.files.values()) + sum(self.unlinked.values())
        assert self.gate.used_inodes == len(self.files) + len(self.unlinked)
        assert self.gate.used_bytes <= LIMIT
        assert self.gate.used_inodes <= INODES

    @invariant()
    def a_crash_now_would_lose_nothing(self):
        total, inodes = self.ledger.settled
        for key, charged in self.ledger.slots.values():
            total += self.files.get(key, 0) - charged.bytes_
            inodes += (1 if key in self.files else 0) - charged.inodes
        assert (total, inodes) == (sum(self.files.values()), len(self.files))

    def teardown(self):
        for name in list(self.open):
            self.close_file(name=name)
        self.gate.close()


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_uncertain_change_leaves_the_epoch_open_for_the_next_owner_to_count():
    ledger = ModelLedger()
    gate = QuotaGate(ledger, Usage(0, 0), volume_id="v", backend_type="m", quota_bytes=None, quota_inodes=None)
    charge = InodeCharge(b"k", 0)
    gate.reserve(charge, 0, 10)
    gate.fail(charge)
    gate.release(charge, gone=False)
    gate.close()
    # Its own slot, and one that nobody can measure: the inode may have been charged again meanwhile.
    assert list(ledger.slots.values()) == [(b"k", Usage(0, 1)), (None, Usage(0, 0))]


def test_without_a_limit_everything_fits_and_is_counted():
    gate = QuotaGate(None, Usage(5, 1), volume_id="v", backend_type="m", quota_bytes=None, quota_inodes=None)
    assert gate.reserve(InodeCharge(None, 0), 0, 1 << 60) == 1 << 60
    assert gate.info().used_bytes == 5 + (1 << 60)


def test_what_stands_above_a_lowered_limit_is_reported_and_not_negative():
    gate = QuotaGate(None, Usage(50, 1), volume_id="v", backend_type="m", quota_bytes=10, quota_inodes=None)
    assert gate.info().free_bytes == 0
    with pytest.raises(QuotaExceeded):
        gate.reserve(InodeCharge(None, 50), 50, 51)
