"""Deadlines measure progress: slow storage gets its time, and what hangs is given up. The clock is moved by hand."""

import gc
import os
import threading

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from volgate.concurrency import BoundedThreads, give_up_at_standstill
from volgate.drivers.posix.backend import PosixBackend
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import VolumeOperationContext
from volgate.testing.backend_contract import OWNER

LIMIT_S = 10


class SlowStorage:
    """Lets a call return when it is told to."""

    def __init__(self, places):
        self.threads = BoundedThreads(places)
        self.begun, self.may_return = threading.Semaphore(0), threading.Semaphore(0)
        self.answers = []

    def call(self):
        self.begun.release()
        self.may_return.acquire()

    async def request(self, calls=1):
        returned = 0
        with give_up_at_standstill(LIMIT_S):
            for _ in range(calls):
                await self.threads.run(self.call)
                returned += 1
        self.answers.append(returned)

    async def wait_begun(self):
        while not self.begun.acquire(blocking=False):
            await trio.lowlevel.checkpoint()


@pytest.fixture
def clock():
    return MockClock()


def test_requests_in_a_queue_that_moves_all_get_their_turn(clock):
    async def main():
        storage = SlowStorage(places=1)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(storage.request)
            for _ in range(5):
                await storage.wait_begun()
                clock.jump(0.6 * LIMIT_S)
                storage.may_return.release()
        assert storage.answers == [1] * 5

    trio.run(main, clock=clock)


def test_a_request_of_many_calls_may_take_long_as_long_as_they_return(clock):
    async def main():
        storage = SlowStorage(places=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.request, 5)
            for _ in range(5):
                await storage.wait_begun()
                clock.jump(0.6 * LIMIT_S)
                storage.may_return.release()
        assert storage.answers == [5]

    trio.run(main, clock=clock)


def test_a_call_that_hangs_is_given_up_while_others_go_on_and_keeps_its_place_until_it_returns(clock):
    async def main():
        storage = SlowStorage(places=2)
        hangs, comes_back = threading.Event(), threading.Event()

        async def hang():
            with give_up_at_standstill(LIMIT_S):
                await storage.threads.run(lambda: (hangs.set(), comes_back.wait()))
            storage.answers.append("given up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            while not hangs.is_set():
                await trio.lowlevel.checkpoint()
            for _ in range(3):
                nursery.start_soon(storage.request)
            for _ in range(2):
                await storage.wait_begun()
                clock.jump(0.6 * LIMIT_S)
                storage.may_return.release()
            await storage.wait_begun()
            await wait_all_tasks_blocked()
            assert storage.answers[-1] == 1 and "given up" in storage.answers
            nursery.start_soon(storage.request)
            await wait_all_tasks_blocked()
            assert not storage.begun.acquire(blocking=False)  # one place only is left
            comes_back.set()
            await storage.wait_begun()
            storage.may_return.release(2)
        assert sorted(map(str, storage.answers)) == ["1", "1", "1", "1", "given up"]

    trio.run(main, clock=clock)


class SlowToOpen(PosixBackend):
    """Opens a file when it is told to."""

    def __init__(self, source):
        super().__init__(source)
        self.begun, self.may_go = threading.Event(), threading.Event()

    async def open_file(self, *args, **kwargs):
        self.begun.set()
        self.may_go.wait()
        return await super().open_file(*args, **kwargs)


def test_a_file_whose_open_was_given_up_is_closed_when_it_comes(tmp_path):
    async def main():
        slow = SlowToOpen(tmp_path)
        backend = ThreadedBackend(slow)
        root = await backend.open_volume(VolumeOperationContext("v", tmp_path, "posix", "uid:0"))
        file, _ = await backend.create_file(root, b"f", 0o644, OWNER)
        await file.close()
        gc.collect()  # what other tests left open may go at any time
        before = os.listdir("/proc/self/fd")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: backend.open_file(root, b"f", 0, writable=False))
            await trio.to_thread.run_sync(slow.begun.wait)
            nursery.cancel_scope.cancel()
        slow.may_go.set()
        with trio.fail_after(10):
            while backend.threads.in_use or os.listdir("/proc/self/fd") != before:
                await trio.sleep(0.01)
        root.close()
        await backend.close()

    trio.run(main)
