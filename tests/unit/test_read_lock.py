"""Whose turn it is to read a request: one at a time, none forgotten, the scheduler only where it is needed."""

import trio
import trio.testing

from volgate.fuse.channel import ReadLock


class CountSteps(trio.abc.Instrument):
    def __init__(self):
        self.steps = 0

    def before_task_step(self, task):
        self.steps += 1


def test_who_answers_at_once_reads_on_while_another_stands_by():
    steps = CountSteps()

    async def main():
        lock = ReadLock()
        standing_by_read = trio.Event()

        async def stand_by():
            async with lock:
                standing_by_read.set()

        async with trio.open_nursery() as nursery:
            async with lock:
                nursery.start_soon(stand_by)
                await trio.testing.wait_all_tasks_blocked()
            before = steps.steps
            for _ in range(100):
                async with lock:
                    assert not standing_by_read.is_set()
            assert steps.steps == before
            await standing_by_read.wait()  # who has to wait leaves the turn to the other

    trio.run(main, instruments=[steps])


def test_one_reads_at_a_time_and_everyone_gets_a_turn():
    async def main():
        lock, inside, turns = ReadLock(), 0, dict.fromkeys(range(5), 0)

        async def reader(number):
            nonlocal inside
            for _ in range(20):
                async with lock:
                    inside += 1
                    assert inside == 1
                    await trio.lowlevel.checkpoint()
                    inside -= 1
                turns[number] += 1
                await trio.lowlevel.checkpoint()

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in turns:
                    nursery.start_soon(reader, number)
        assert set(turns.values()) == {20}

    trio.run(main)


def test_a_cancelled_reader_takes_no_turn_with_it():
    async def main():
        lock = ReadLock()

        async def reader(scope):
            with scope:
                async with lock:
                    pass

        scopes = [trio.CancelScope() for _ in range(3)]
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                async with lock:
                    for scope in scopes:
                        nursery.start_soon(reader, scope)
                    await trio.testing.wait_all_tasks_blocked()
                    scopes[0].cancel()
                scopes[1].cancel()

    trio.run(main)
