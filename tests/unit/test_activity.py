"""What keeps an owner from its end, and what is broken off for it."""

import math

import pytest
import trio
import trio.testing

from volgate.daemon.activity import Activity
from volgate.errors import ShuttingDown


async def work(activity, end, *, until, log):
    try:
        with activity.under_way(end, end):
            await until.wait()
            log.append(f"{end}: done")
    except ShuttingDown as error:
        log.append(f"{end}: {error}")


def test_at_the_end_some_work_is_waited_for_some_broken_off_and_nothing_begun():
    async def main():
        activity, log, until = Activity(), [], trio.Event()
        async with trio.open_nursery() as nursery:
            for end in ("awaited", "broken off", "drained"):
                nursery.start_soon(lambda end=end: work(activity, end, until=until, log=log))
            background = trio.Event()
            nursery.start_soon(activity.in_background, trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(activity.names) == ["awaited", "broken off", "drained"] and activity.is_awaited

            async def end():
                await activity.break_off()
                background.set()

            nursery.start_soon(end)
            await trio.testing.wait_all_tasks_blocked()
            assert log == ["broken off: the volume's owner is about to end, and broke this off"]
            assert sorted(activity.names) == ["awaited", "drained"] and not background.is_set()
            with pytest.raises(ShuttingDown), activity.under_way("new"):
                raise AssertionError("it was begun")
            with pytest.raises(ShuttingDown):
                activity.hold()
            with activity.under_way("flush", "drained"):
                pass
            activity.give_up()
            until.set()
            await background.wait()
        assert sorted(log[1:]) == ["awaited: done", "drained: done"]

    trio.run(main)


def test_what_is_given_up_is_broken_off_too():
    async def main():
        activity, log, never = Activity(), [], trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: work(activity, "awaited", until=never, log=log))
            await trio.testing.wait_all_tasks_blocked()
            activity.give_up()
            await activity.break_off()
        assert len(log) == 1 and "broke this off" in log[0]

    trio.run(main)


def test_it_is_idle_when_nothing_was_under_way_for_long_enough():
    async def main():
        activity, until, idle = Activity(), trio.Event(), trio.Event()

        async def watch():
            await activity.wait_until_idle(0.05)
            idle.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: work(activity, "awaited", until=until, log=[]))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(watch)
            await trio.sleep(0.1)
            assert not idle.is_set()
            until.set()
        assert idle.is_set()
        with trio.move_on_after(0) as at_once:
            await activity.wait_until_idle(math.inf)
        assert at_once.cancelled_caught

    trio.run(main)
