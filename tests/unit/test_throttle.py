"""A limit of bytes a second: kept on average, in order, and never in the way of small requests."""

import trio
import trio.testing

from volgate.drivers.s3.throttle import Throttle

MIB = 1 << 20


def run(main):
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_many_requests_at_once_move_no_more_than_allowed():
    async def main():
        throttle, began = Throttle(MIB), []

        async def move(number):
            await throttle.wait(MIB)
            began.append((number, trio.current_time()))

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(move, number)
                await trio.lowlevel.checkpoint()
        assert [number for number, _ in began] == list(range(20))
        for number, at in began:
            assert number * MIB <= (at - start + 0.25) * MIB + 1
        assert trio.current_time() - start < 20

    run(main)


def test_a_small_request_waits_for_nobody_and_counts():
    async def main():
        throttle = Throttle(MIB)
        for _ in range(10):
            with trio.move_on_after(0):
                await throttle.wait(MIB)
        before = trio.current_time()
        await throttle.wait(4096)
        assert trio.current_time() == before
        await throttle.wait(MIB)
        assert trio.current_time() - before >= 9

    run(main)


def test_what_was_not_used_is_not_saved_up():
    async def main():
        throttle = Throttle(MIB)
        await trio.sleep(1000)
        before = trio.current_time()
        for _ in range(5):
            await throttle.wait(MIB)
        assert trio.current_time() - before >= 3.5

    run(main)


def test_no_limit_means_no_wait():
    async def main():
        before = trio.current_time()
        for _ in range(100):
            await Throttle(None).wait(1 << 40)
        assert trio.current_time() == before

    run(main)
