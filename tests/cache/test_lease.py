"""The lease on the reference store, at once, and on a real server, with its clock ten times as fast."""

import itertools
import json
import logging
import shutil

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import faulty_http
import s3_server
from faulty_http import Fault
from volgate import errors
from volgate.cache.identity import load_identity
from volgate.cache.lease import EXPIRE_S, FENCE_S, RENEW_S, Lease
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.drivers.object_store import StoreCapabilities
from volgate.drivers.s3.settings import S3Settings
from volgate.drivers.s3.store import S3ObjectStore
from volgate.dto import Usage

KEY = ".volgate/lease"
ANN = json.dumps({"host": "ann", "pid": 1, "token": "boot-1 dir-a", "cache": "dir-a"}).encode()
ANN_AFTER_A_REBOOT = ANN.replace(b"boot-1", b"boot-2")
BOB = json.dumps({"host": "bob", "pid": 2, "token": "boot-9 dir-b", "cache": "dir-b"}).encode()


class Store(MemoryObjectStore):
    """The reference store behind a net that fails as it is told.

    Attributes:
        down: it does not answer. hangs: nor does it refuse. loses: how many replies to ``put`` get lost.
        delays: how long each request takes to come there, and its answer to come back; nothing at their end.
        heeds: whether it keeps conditions.
    """

    def __init__(self, *, heeds=True):
        super().__init__()
        self.down = self.hangs = False
        self.loses = self.puts = 0
        self.heeds, self.delays = heeds, iter(())

    @property
    def capabilities(self):
        return StoreCapabilities(conditional_put=self.heeds)

    async def cross(self):
        await trio.sleep(next(self.delays, 0))
        if self.hangs:
            await trio.sleep_forever()
        if self.down:
            raise errors.Unavailable("the store does not answer")

    async def head(self, key):
        await self.cross()
        info = await super().head(key)
        await self.cross()
        return info

    async def get_range(self, key, offset, length, *, etag=None):
        await self.cross()
        return await super().get_range(key, offset, length, etag=etag)

    async def put(self, key, body, *, if_absent=False, if_match=None, **others):
        await self.cross()
        self.puts += 1
        conditions = {"if_absent": if_absent, "if_match": if_match} if self.heeds else {}
        etag = await super().put(key, body, **conditions, **others)
        await self.cross()
        if self.loses:
            self.loses -= 1
            raise errors.TimedOut("no answer")
        return etag


def new_lease(store, **options):
    return Lease(store, clock=trio.current_time, **options)


@pytest.fixture
def run():
    """Return a function that runs a test with (store, nursery); waiting takes no time."""

    def run(test, **options):
        async def main():
            async with trio.open_nursery() as nursery:
                await test(Store(**options), nursery)
                nursery.cancel_scope.cancel()

        trio.run(main, clock=MockClock(autojump_threshold=0))

    return run


async def stored(store):
    return json.loads(await store.get_range(KEY, 0, 10_000))


async def refused(lease, holder):
    """Return what a refusal says, and after how long."""
    began = trio.current_time()
    with pytest.raises(errors.Busy) as caught:
        await lease.acquire(holder)
    return json.loads(str(caught.value)), trio.current_time() - began


def test_the_first_owner(run):
    async def test(store, nursery):
        lease = new_lease(store)
        assert lease.state == "none"
        with pytest.raises(errors.Stale, match="not held"):
            lease.check()
        granted = await lease.acquire(ANN)
        assert (granted.previous_epoch, granted.clean, granted.usage) == (0, False, None)
        assert lease.state == "held" and lease.lost_to == ""
        lease.check()
        assert trio.current_time() < 1

    run(test)


def test_another_is_refused_within_a_renewal_and_told_who_has_it(run):
    async def test(store, nursery):
        lease = new_lease(store)
        await lease.acquire(ANN)
        await nursery.start(lease.run)
        lease.set_backlog(7, 1)
        for take_over in (False, True):
            said, after_s = await refused(new_lease(store, take_over=take_over), BOB)
            assert said == {"host": "ann", "pid": 1, "backlog_bytes": 7, "backlog_files": 1, "expired": False}
            assert after_s <= RENEW_S + 5
        await trio.sleep(10 * EXPIRE_S)
        assert lease.state == "held"

    run(test)


def test_an_owner_that_does_not_renew_is_replaced_and_finds_out(run, caplog):
    async def test(store, nursery):
        lost, lease = new_lease(store), new_lease(store)
        first = await lost.acquire(ANN)
        await trio.sleep(FENCE_S - 0.1)
        lost.check()
        await trio.sleep(0.1)
        assert lost.state == "fenced"
        with pytest.raises(errors.Unavailable, match=r"not renewed for 30 s$"):
            lost.check()
        began = trio.current_time()
        second = await lease.acquire(BOB)
        assert trio.current_time() - began == pytest.approx(EXPIRE_S)
        assert (second.epoch, second.previous_epoch) == (first.epoch + 1, first.epoch)
        assert not second.clean and second.usage is None
        await lost.run()
        assert lost.state == "lost" and json.loads(lost.lost_to)["host"] == "bob"
        with pytest.raises(errors.Stale, match=r'another host owns the volume: \{"host": "bob"'):
            lost.check()
        await lost.release(Usage(1, 1))
        assert lost.state == "lost"
        lease.check()
        assert (await stored(store))["holder"]["host"] == "bob"

    run(test)
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "the volume was taken over"
    ]


def test_an_abandoned_backlog_is_given_to_who_takes_over_alone(run):
    async def test(store, nursery):
        lease = new_lease(store)
        await lease.acquire(ANN)
        async with trio.open_nursery() as inner:
            await inner.start(lease.run)
            lease.set_backlog(1000, 3)
            await trio.sleep(1)
            inner.cancel_scope.cancel()
        assert (await stored(store))["backlog_bytes"] == 1000, "the first backlog is written at once"
        said, after_s = await refused(new_lease(store), BOB)
        assert said == {"host": "ann", "pid": 1, "backlog_bytes": 1000, "backlog_files": 3, "expired": True}
        assert after_s >= EXPIRE_S
        await new_lease(store, take_over=True).acquire(BOB)
        assert (await stored(store))["backlog_files"] == 0

    run(test)


def test_what_was_given_up_is_had_at_once_with_its_usage(run):
    async def test(store, nursery):
        lease, usage = new_lease(store), Usage(123, 4)
        first = await lease.acquire(ANN)
        await lease.release(usage)
        assert lease.state == "none"
        with pytest.raises(errors.Stale):
            lease.check()
        second = await new_lease(store).acquire(BOB)
        assert attrs.astuple(second, recurse=False) == (first.epoch + 1, first.epoch, True, usage)
        assert trio.current_time() < 1

    run(test)


def test_a_backlog_left_at_the_release_is_had_at_once_by_its_own_host_alone(run):
    async def test(store, nursery):
        lease = new_lease(store)
        await lease.acquire(ANN)
        lease.set_backlog(5, 1)
        await lease.release(Usage(123, 4))
        said, after_s = await refused(new_lease(store), BOB)
        assert said["expired"] and after_s < 1
        granted = await new_lease(store).acquire(ANN_AFTER_A_REBOOT)
        assert granted.clean and granted.usage == Usage(123, 4)

    run(test)


def test_after_a_crash_the_same_host_goes_on_at_once_and_after_a_reboot_when_it_expired(run):
    async def test(store, nursery):
        lease = new_lease(store)
        first = await lease.acquire(ANN)
        lease.set_backlog(5, 1)
        with trio.move_on_after(1):
            await lease.run()
        lease = new_lease(store)
        second = await lease.acquire(ANN)
        assert trio.current_time() < 2
        assert (second.epoch, second.previous_epoch, second.clean) == (first.epoch + 1, first.epoch, False)
        with trio.move_on_after(RENEW_S + 1):
            await lease.run()
        assert (await stored(store))["backlog_files"] == 1, "until the journal was read"
        third = await new_lease(store).acquire(ANN_AFTER_A_REBOOT)
        assert third.epoch == second.epoch + 1
        assert trio.current_time() > EXPIRE_S

    run(test)


def test_a_cache_directory_keeps_an_id_that_no_other_has(tmp_path):
    places = tmp_path / "ann", tmp_path / "bob"
    for place in places:
        place.mkdir()
    ann, bob = map(load_identity, places)
    assert ann != bob and (load_identity(places[0]), load_identity(places[1])) == (ann, bob)
    assert [path.name for path in places[0].iterdir()] == ["id"]
    assert (places[0] / "id").stat().st_mode & 0o777 == 0o600
    shutil.copytree(places[0], tmp_path / "copy")
    assert load_identity(tmp_path / "copy") != ann
    places[0].rename(tmp_path / "moved")
    assert load_identity(tmp_path / "moved") == ann


@pytest.mark.parametrize("found", [b"", b"id\n", b"\xff" * 33, b"../../" * 10_000])
def test_an_id_of_a_cache_that_is_garbled_is_made_anew(tmp_path, found):
    (tmp_path / "id").write_bytes(found)
    made = load_identity(tmp_path)
    assert len(made) == 32 and load_identity(tmp_path) == made


@pytest.mark.parametrize(("fault", "why"), [("down", "does not answer"), ("hangs", "no answer within")])
def test_a_store_that_fails_fences_until_it_answers(run, fault, why):
    async def test(store, nursery):
        lease = new_lease(store)
        await lease.acquire(ANN)
        await nursery.start(lease.run)
        setattr(store, fault, True)
        await trio.sleep(5 * EXPIRE_S)
        assert lease.state == "fenced"
        with pytest.raises(errors.Unavailable, match=f"not renewed for .* s: .*{why}"):
            lease.check()
        setattr(store, fault, False)
        await trio.sleep(RENEW_S + 2)
        lease.check()

    run(test)


def test_a_renewal_whose_reply_was_lost_is_no_loss(run):
    async def test(store, nursery):
        lease = new_lease(store)
        await lease.acquire(ANN)
        await nursery.start(lease.run)
        store.loses = 1
        await trio.sleep(FENCE_S)
        lease.check()
        assert store.loses == 0
        store.loses = 1
        await lease.release(None)
        assert (await new_lease(store).acquire(BOB)).clean, "the release came though its reply did not"

    run(test)


def test_an_owner_counts_from_before_it_asked(run):
    async def test(store, nursery):
        store.delays = iter([0, 0, 4])
        lease = new_lease(store)
        await lease.acquire(ANN)
        assert trio.current_time() == 4
        await trio.sleep(FENCE_S - 4)
        assert lease.state == "fenced"
        store.delays = iter([4, 4])
        with trio.move_on_after(9):
            await lease.run()
        assert lease.state == "held"
        await trio.sleep(FENCE_S - 9)
        assert lease.state == "fenced"

    run(test)


def test_a_grant_whose_reply_was_lost_is_had_by_asking_again(run):
    async def test(store, nursery):
        store.loses = 1
        lease = new_lease(store)
        with pytest.raises(errors.TimedOut):
            await lease.acquire(ANN)
        assert lease.state == "none"
        await lease.acquire(ANN)
        assert trio.current_time() < 1

    run(test)


def test_a_release_that_cannot_be_written_is_logged(run, caplog):
    async def test(store, nursery):
        lease = new_lease(store)
        await lease.acquire(ANN)
        store.down = True
        await lease.release(Usage(1, 1))
        assert lease.state == "none"

    run(test)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the lease could not be written"
    ]


def test_what_cannot_be_read_is_given_to_who_takes_over_when_it_does_not_change(run):
    async def test(store, nursery):
        await store.put(KEY, b"spoilt")
        said, after_s = await refused(new_lease(store), ANN)
        assert said == {"unreadable": True, "expired": True} and after_s >= EXPIRE_S
        granted = await new_lease(store, take_over=True).acquire(ANN)
        assert granted.previous_epoch == 0 and not granted.clean

    run(test)


def test_a_lease_of_a_later_version_is_left_alone(run):
    async def test(store, nursery):
        lease = new_lease(store)
        await lease.acquire(ANN)
        newer = json.dumps(await stored(store) | {"format": 2}).encode()
        await store.put(KEY, newer)
        with pytest.raises(errors.Unsupported, match="a later version"):
            await new_lease(store, take_over=True).acquire(BOB)
        await lease.run()
        assert lease.state == "lost" and json.loads(lease.lost_to) == {"newer": True}
        assert await store.get_range(KEY, 0, 10_000) == newer

    run(test)


def test_a_lease_deleted_by_hand_is_written_again_and_its_epochs_do_not_come_again(run):
    async def test(store, nursery):
        lease = new_lease(store)
        first = await lease.acquire(ANN)
        await nursery.start(lease.run)
        await store.delete(KEY)
        await trio.sleep(RENEW_S + 1)
        lease.check()
        assert (await stored(store))["epoch"] == first.epoch > 1_700_000_000

    run(test)


def test_one_of_many_who_come_at_once_gets_it(run):
    async def test(store, nursery):
        store.delays = itertools.cycle([0.3, 0.1, 0.2, 0.5])
        outcomes = []

        async def come(number):
            lease = new_lease(store)
            try:
                await lease.acquire(json.dumps({"host": number}).encode())
            except errors.Busy as error:
                outcomes.append(json.loads(str(error))["host"])
            else:
                outcomes.append("owner")
                await lease.run()

        for number in range(5):
            nursery.start_soon(come, number)
        await trio.sleep(2 * EXPIRE_S)
        assert outcomes.count("owner") == 1
        assert len(outcomes) == 5 and len(set(outcomes)) == 2, "all others are told who it is"

    run(test)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 0.1, 3.0, 9.0, 11.0, 25.0, 40.0, 70.0]), min_size=5, max_size=60))
def test_however_slow_the_net_two_never_own_the_volume(delays):
    async def live(store, number, leases):
        while True:
            lease = leases[number] = new_lease(store)
            try:
                await lease.acquire(json.dumps({"host": number}).encode())
                await lease.run()
            except errors.Busy:
                await trio.sleep(1)

    async def main():
        store, leases = Store(), {}
        store.delays = iter(delays)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(live, store, number, leases)
            for _ in range(700):
                await trio.sleep(1)
                assert sum(lease.state == "held" for lease in leases.values()) <= 1
            nursery.cancel_scope.cancel()
            assert any(lease.state == "held" for lease in leases.values())

    trio.run(main, clock=MockClock(autojump_threshold=0))


# -- a store without conditions ----------------------------------------------------------------------------------


def test_without_conditions_two_who_come_at_once_still_see_each_other(run):
    async def test(store, nursery):
        ann, bob = new_lease(store), new_lease(store)
        outcomes = []

        async def come(lease, holder):
            try:
                await lease.acquire(holder)
                await lease.run()
            except errors.Busy as error:
                outcomes.append(json.loads(str(error))["host"])

        nursery.start_soon(come, ann, ANN)
        nursery.start_soon(come, bob, BOB)
        await trio.sleep(EXPIRE_S)
        assert sorted([ann.state, bob.state]) == ["held", "none"]
        assert outcomes == ["ann" if ann.state == "held" else "bob"]

    run(test, heeds=False)


def test_without_conditions_an_owner_looks_before_it_renews(run):
    async def test(store, nursery):
        lost, lease = new_lease(store), new_lease(store)
        await lost.acquire(ANN)
        await lease.acquire(BOB)
        await lost.run()
        assert lost.state == "lost"
        await nursery.start(lease.run)
        await trio.sleep(EXPIRE_S)
        lease.check()

    run(test, heeds=False)


# -- a real server -----------------------------------------------------------------------------------------------

BUCKETS = itertools.count()


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as found:
        yield found


@pytest.fixture
def run_on_s3(server, monkeypatch):
    """Return a function that runs a test with (two stores of one bucket, faults, nursery)."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{next(BUCKETS)}"
    server.make_bucket(bucket)

    with faulty_http.proxy(server.url) as (url, faults, _):
        source = S3Settings.from_source(f"s3://{bucket}/some/prefix", {})

        def run(test):
            async def main():
                stores = [S3ObjectStore(attrs.evolve(source, endpoint_url=place)) for place in (url, server.url)]
                for store in stores:
                    await store.open(writable=True)
                async with trio.open_nursery() as nursery:
                    await test(*stores, faults, nursery)
                    nursery.cancel_scope.cancel()
                for store in stores:
                    await store.close()

            trio.run(main, clock=MockClock(rate=10))

        yield run


def test_on_a_real_server_the_lease_goes_from_one_to_the_other(run_on_s3):
    async def test(store, other_store, faults, nursery):
        first, second = new_lease(store), new_lease(other_store)
        granted = await first.acquire(ANN)
        async with trio.open_nursery() as inner:
            await inner.start(first.run)
            said, _ = await refused(second, BOB)
            assert said["host"] == "ann" and not said["expired"]
            inner.cancel_scope.cancel()
        await first.release(Usage(9, 2))
        assert await second.acquire(BOB) == attrs.evolve(
            granted, epoch=granted.epoch + 1, previous_epoch=granted.epoch, clean=True, usage=Usage(9, 2)
        )

    run_on_s3(test)


def test_on_a_real_server_an_owner_that_is_cut_off_is_replaced_and_one_that_is_heard_is_not(run_on_s3):
    async def test(store, other_store, faults, nursery):
        first, second = new_lease(store), new_lease(other_store)
        await first.acquire(ANN)
        await nursery.start(first.run)
        faults.append(Fault(faulty_http.lose_reply, "PUT"))
        await trio.sleep(2 * RENEW_S)
        first.check()
        faults.append(Fault(faulty_http.reset, times=10_000))
        await second.acquire(BOB)
        assert first.state == "fenced"
        await nursery.start(second.run)
        faults.clear()
        with trio.fail_after(10 * RENEW_S):
            while first.state != "lost":
                await trio.sleep(1)
        assert json.loads(first.lost_to)["host"] == "bob"
        second.check()

    run_on_s3(test)
