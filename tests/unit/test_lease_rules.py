"""The lease's rules on hosts that crash, stop and are not heard: no two of them ever own the volume."""

import json
import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volgate.core.lease_record import FORMAT, LeaseRecord, Seen, parse_holder
from volgate.core.lease_rules import EXPIRE_S, Candidate, Holding, Verdict
from volgate.dto import Usage
from volgate.errors import InvalidArgument

COUNTS = st.integers(0, 2**63)
RECORDS = st.builds(
    LeaseRecord,
    COUNTS,
    st.text(),
    COUNTS,
    st.dictionaries(st.text(), st.integers() | st.text()),
    COUNTS,
    COUNTS,
    st.booleans(),
    st.none() | st.builds(Usage, COUNTS, COUNTS),
)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record):
    assert Seen.from_bytes("e", record.to_bytes()) == Seen("e", record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(RECORDS, st.sampled_from(sorted(json.loads(LeaseRecord(1, "g", 0, {}).to_bytes()))), JSON)
def test_a_spoilt_record_is_unreadable_or_newer_but_never_an_error(record, field, value):
    seen = Seen.from_bytes("e", json.dumps(json.loads(record.to_bytes()) | {field: value}).encode())
    assert seen.etag == "e"
    assert seen.is_newer == (field == "format" and type(value) is int and value > FORMAT)
    assert json.loads(seen.describe())


@given(st.binary() | st.sampled_from([b"[" * 60_000, b"{}", b"[]", b"9" * 5000, b'{"format": 1}']))
def test_any_other_object_is_unreadable(body):
    assert Seen.from_bytes("e", body) == Seen("e")


def test_people_are_not_told_what_programs_tell_each_other():
    seen = Seen("e", LeaseRecord(1, "g", 0, {"host": "a", "token": "t", "cache": "c"}, 5, 2))
    assert json.loads(seen.describe(expired=True)) == {
        "host": "a", "backlog_bytes": 5, "backlog_files": 2, "expired": True,
    }  # fmt: skip


@pytest.mark.parametrize("line", [b"", b"me", b"[]", b"\xff"])
def test_a_holder_without_a_json_object_is_refused(line):
    with pytest.raises(InvalidArgument):
        parse_holder(line)


def judged(record, *, take_over=False, after_s=EXPIRE_S, **holder):
    """Return the first verdict on a record, and the one after a time without a change."""
    candidate = Candidate(holder, take_over)
    return candidate.judge(Seen("e", record), 1000.0), candidate.judge(Seen("e", record), 1000.0 + after_s)


THEIRS = {"token": "boot-1 dir-1", "cache": "dir-1"}
IDLE = LeaseRecord(7, "g", 3, THEIRS)
BUSY = attrs.evolve(IDLE, backlog_bytes=10, backlog_files=1)
DELETING = attrs.evolve(IDLE, backlog_files=1)


@pytest.mark.parametrize(
    ("record", "how", "verdicts"),
    [
        (IDLE, {}, (Verdict.WAIT, Verdict.TAKE)),
        (IDLE, {"after_s": EXPIRE_S - 0.1}, (Verdict.WAIT, Verdict.WAIT)),
        (IDLE, {"token": "boot-1 dir-1"}, (Verdict.TAKE, Verdict.TAKE)),
        (BUSY, {"token": "boot-1 dir-1"}, (Verdict.TAKE, Verdict.TAKE)),
        (BUSY, {}, (Verdict.WAIT, Verdict.ABANDONED)),
        (DELETING, {}, (Verdict.WAIT, Verdict.ABANDONED)),
        (BUSY, {"take_over": True}, (Verdict.WAIT, Verdict.TAKE)),
        (BUSY, {"token": "boot-2 dir-1", "cache": "dir-1"}, (Verdict.WAIT, Verdict.TAKE)),
        (attrs.evolve(IDLE, released=True), {}, (Verdict.TAKE, Verdict.TAKE)),
        (attrs.evolve(BUSY, released=True), {}, (Verdict.ABANDONED, Verdict.ABANDONED)),
        (attrs.evolve(BUSY, released=True), {"take_over": True}, (Verdict.TAKE, Verdict.TAKE)),
        (attrs.evolve(BUSY, released=True), {"cache": "dir-1"}, (Verdict.TAKE, Verdict.TAKE)),
        (None, {}, (Verdict.WAIT, Verdict.ABANDONED)),
        (None, {"take_over": True}, (Verdict.WAIT, Verdict.TAKE)),
        (attrs.evolve(IDLE, holder={}), {}, (Verdict.WAIT, Verdict.TAKE)),
    ],
)
def test_what_is_done_about_a_lease_that_does_not_change(record, how, verdicts):
    assert judged(record, **how) == verdicts


def test_a_lease_that_changes_is_anothers_also_for_who_takes_over():
    candidate = Candidate({}, take_over=True)
    assert candidate.judge(Seen("e", IDLE), 0.0) is Verdict.WAIT
    assert candidate.judge(Seen("f", IDLE), EXPIRE_S) is Verdict.BUSY


def test_who_loses_the_race_for_a_free_lease_is_refused_at_once():
    candidate = Candidate({}, take_over=False)
    assert candidate.judge(Seen(""), 0.0) is Verdict.TAKE
    assert candidate.judge(Seen("e", IDLE), 1.0) is Verdict.BUSY


def test_what_a_grant_says_of_the_owner_before():
    usage = Usage(5, 2)
    released = attrs.evolve(BUSY, released=True, usage=usage)
    same, other = Candidate({"cache": "dir-1"}, take_over=True), Candidate({}, take_over=True)

    def granted(candidate, record):
        return attrs.astuple(candidate.take(Seen("e", record), "new", 99)[1], recurse=False)

    assert granted(other, None) == (99, 0, False, None)
    assert granted(other, IDLE) == (8, 7, False, None)
    assert granted(other, attrs.evolve(released, backlog_bytes=0, backlog_files=0)) == (8, 7, True, usage)
    assert granted(other, released) == (8, 7, False, None), "its usage counts files that never came"
    assert granted(same, released) == (8, 7, True, usage)


def test_a_backlog_of_our_own_stays_written_until_it_is_counted_anew():
    assert Candidate({"cache": "dir-1"}, take_over=False).take(Seen("e", BUSY), "new", 1)[0].has_backlog
    assert not Candidate({}, take_over=True).take(Seen("e", BUSY), "new", 1)[0].has_backlog


# -- hosts on a net ----------------------------------------------------------------------------------------------


class UnheardError(Exception):
    """The reply never comes; whether the request does is open."""


@attrs.define(eq=False)
class Request:
    record: LeaseRecord | None
    """To be put; None = the object is read."""
    etag: str = ""
    answer: object = None


class Store:
    def __init__(self):
        self.etag, self.record, self.writes = "", None, 0

    def serve(self, request):
        if request.record is None:
            request.answer = Seen(self.etag, self.record)
        elif request.etag == self.etag:
            self.writes += 1
            self.etag, self.record = f"v{self.writes}", request.record
            request.answer = self.etag
        else:
            request.answer = False


class Host:
    """One after the other of a host's processes; what they ask waits in ``request`` until the net serves it.

    Between two requests a process rests: ``request`` is None.
    """

    def __init__(self, number, rate, true_time):
        self.name, self.rate, self.true_time = f"host {number}", rate, true_time
        self.offset, self.grants, self.late = 1e4 * number, 0, []
        self.request = self.start()

    def start(self):
        self.holding, self.backlog = None, (0, 0)
        self.process = self.live()
        return next(self.process)

    def now(self):
        return self.offset + self.rate * self.true_time()

    def owns(self):
        return self.holding is not None and self.holding.state(self.now()) == "held"

    def live(self):
        while True:
            try:
                yield from self.acquire()
                while self.holding.lost_to is None:
                    try:
                        yield from self.renew(self.holding)
                    except UnheardError:
                        continue
            except UnheardError:
                self.holding = None

    def acquire(self):
        candidate = Candidate({"token": self.name}, take_over=True)
        while True:
            yield None
            seen = yield Request(None)
            verdict = candidate.judge(seen, self.now())
            if verdict is Verdict.BUSY:
                candidate = Candidate({"token": self.name}, take_over=True)
            elif verdict is Verdict.TAKE:
                self.grants += 1
                record, _ = candidate.take(seen, f"{self.name} {self.grants}", 1)
                sent_at = self.now()
                if etag := (yield Request(record, seen.etag)):
                    self.holding = Holding(record, etag, sent_at)
                    return

    def renew(self, holding, **how):
        yield None
        while True:
            holding.begin_write(self.backlog, **how)
            sent_at = self.now()
            if etag := (yield Request(holding.record, holding.etag)):
                holding.end_write(etag, sent_at)
                return
            if not holding.meet((yield Request(None))):
                return

    def release(self):
        holding, self.holding = self.holding, None
        try:
            if holding is not None and holding.lost_to is None:
                yield from self.renew(holding, released=True)
        except UnheardError:
            pass
        yield from self.live()

    def act(self, action, store):
        match action:
            case "go on":
                self.serve(store)
                self.request = self.process.send(self.request and self.request.answer)
            case "serve":
                self.serve(store)
            case "lose":
                self.leave(lambda: self.process.throw(UnheardError()))
            case "crash":
                self.leave(self.start)
            case "release":
                self.process = self.release()
                self.leave(lambda: next(self.process))
            case "arrive":
                while self.late:
                    store.serve(self.late.pop())

    def serve(self, store):
        if self.request is not None and self.request.answer is None:
            store.serve(self.request)

    def leave(self, go_on):
        """Go on without hearing the answer, while the request is still under way."""
        if self.request is not None and self.request.answer is None:
            self.late.append(self.request)
        self.request = go_on()


ACTIONS = ["go on"] * 6 + ["serve", "lose", "lose", "crash", "release", "arrive"]
PAUSES_S = [0.0] * 6 + [1.0, 10.0, 20.0, 29.0, 31.0, 59.0, 61.0]


@settings(max_examples=1000, deadline=None)
@given(st.randoms(use_true_random=True))
def test_no_two_hosts_ever_own_the_volume(random):
    true_time = 0.0
    store = Store()
    hosts = [Host(number, random.choice([0.9, 1.0, 1.1]), lambda: true_time) for number in range(random.randint(2, 3))]
    for _ in range(400):
        true_time += random.choice(PAUSES_S)
        host, action = random.choice(hosts), random.choice(ACTIONS)
        for _ in range(random.randint(1, 5) if action == "go on" else 1):
            host.act(action, store)
            assert sum(host.owns() for host in hosts) <= 1


def test_a_host_that_is_heard_owns_the_volume_after_another_stopped():
    true_time = 0.0
    store = Store()
    stopped, other = (Host(number, 1.0, lambda: true_time) for number in (0, 1))
    while not stopped.owns():
        stopped.act("go on", store)
    while not other.owns():
        true_time += 5.0
        other.act("go on", store)
    assert not stopped.owns()
    for _ in range(3):
        stopped.act("go on", store)
    assert stopped.holding.state(math.inf) == "lost"
