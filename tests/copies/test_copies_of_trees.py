"""Copies and syncs of random trees, without a kernel: equal after, however often they were cut off; usage is exact."""

import contextlib
import os
import random
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import Garden, describe
from worked import Worked

from volgate import errors
from volgate.copies.request import to_request
from volgate.copies.tasks import Tasks
from volgate.drivers.memory import MemoryBackend, MemoryTree
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.errors import InvalidArgument, PermissionDenied, TimedOut, Unavailable
from volumes import CONTEXT, HookedStore

LIMIT_S = 60


class Target:
    """A volume that is copied into, which may die and be opened again."""

    def __init__(self, place: Path, kind: str) -> None:
        self.place, self.kind = place, kind
        place.mkdir()
        self.tree, self.store = MemoryTree(), MemoryObjectStore()

    @contextlib.asynccontextmanager
    async def opened(self):
        """Open it and run its tasks; what is inside may raise, or be cancelled: then it dies."""
        async with trio.open_nursery() as nursery:
            if self.kind == "bucket":
                self.worked = await Worked.on_bucket(self.place, self.store, nursery)
            else:
                backend = None
                if self.kind == "memory":
                    backend = MemoryBackend(self.tree)
                    await backend.create_volume(CONTEXT)
                self.worked = await Worked.open(self.place, backend)
            self.tasks = Tasks(
                self.worked.fs, self._forget, self._forget, lambda name: contextlib.nullcontext(), "mem://"
            )
            await self.tasks.load()
            async with trio.open_nursery() as running:
                running.start_soon(self.tasks.run)
                try:
                    yield self
                finally:
                    running.cancel_scope.cancel()
            await self.worked.close()
            nursery.cancel_scope.cancel()

    async def _forget(self, *_):
        pass

    async def submit(self, **request):
        return (await self.tasks.submit(to_request(request)))["operation_id"]

    async def do(self, **request):
        with trio.fail_after(LIMIT_S):
            return await self.tasks.wait(await self.submit(**request))

    async def shown(self, path=""):
        return await self.worked.tree(path)


def source_of(path: Path) -> dict[str, str]:
    return {"source_type": "posix", "source_text": str(path)}


def plain(described: dict) -> dict:
    """What ``Worked.tree`` tells of a tree."""
    return {path: (found[0], None if os.path.isdir(path) else found[3], found[5]) for path, found in described.items()}


async def compare(target: Target, path: str, garden: Garden) -> None:
    expected = {
        name: (mode, mtime, os.fsencode(content) if isinstance(content, str) else content)
        for name, (mode, _, _, mtime, _, content, _) in describe(garden.path, folder_times=False).items()
    }
    assert await target.shown(path) == expected
    if target.kind == "posix":
        assert describe(target.place / "data" / path) == describe(garden.path)
    await target.worked.check_usage()


def on(kind, call, seed=0):
    """Run a test on a fresh target and garden."""

    async def main():
        with tempfile.TemporaryDirectory(prefix="volgate-test-", dir="/var/tmp") as folder:
            place = Path(folder)
            garden = Garden(place / "source", seed, plain=kind == "bucket")
            await call(Target(place / "target", kind), garden, random.Random(seed))

    trio.run(main)


KINDS = ["posix", "memory", "bucket"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_copy_and_its_syncs_are_like_the_source(kind, seed):
    async def story(target, garden, chance):
        garden.grow(60)
        async with target.opened():
            done = await target.do(kind="copy", source_path="", target_path="copy", **source_of(garden.path))
            assert (done["state"], done["error"]) == ("done", "")
            await compare(target, "copy", garden)
            for _ in range(3):
                garden.change(15)
                if chance.random() < 0.5:  # work beside it, which the sync takes back
                    await target.worked.write("copy/new", b"new")
                done = await target.do(
                    kind="sync", source_path="", target_path="copy", delete=True, **source_of(garden.path)
                )
                assert (done["state"], done["error"]) == ("done", "")
                await compare(target, "copy", garden)
            done = await target.do(
                kind="sync", source_path="", target_path="copy", delete=True, **source_of(garden.path)
            )
            assert not any(done["report"][name] for name in ("created", "replaced", "removed", "adjusted"))

    on(kind, story, seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_a_copy_that_is_cut_off_again_and_again_is_whole_in_the_end_and_unseen_before(kind, seed):
    async def story(target, garden, chance):
        garden.grow(150)
        async with target.opened():
            await target.worked.mkdir("folder")
            operation_id = await target.submit(
                kind="copy", source_path="", target_path="folder/copy", **source_of(garden.path)
            )
        cut_off = 0
        while True:
            async with target.opened():
                with trio.move_on_after(chance.uniform(0.002, 0.05) * 1.5**cut_off):
                    await target.tasks.wait(operation_id)
                if target.tasks.show(operation_id)["state"] == "done":
                    break
                cut_off += 1
                if set(await target.shown()) != {"folder"}:  # it was shown just now, whole
                    assert target.tasks.show(operation_id)["stage"] == "publishing"
                    await compare(target, "folder/copy", garden)
        async with target.opened():
            await compare(target, "folder/copy", garden)
            assert set(await target.shown()) == {"folder", "folder/copy"} | {
                f"folder/copy/{path}" for path in describe(garden.path)
            }

    on(kind, story, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_leaves_nothing_and_says_how_much_is_missing(kind):
    async def story(target, garden, chance):
        for number in range(20):
            (garden.path / str(number)).write_bytes(bytes(10_000))
        async with target.opened():
            await target.worked.volume.set_quota(150_000, None)
            done = await target.do(kind="copy", source_path="", target_path="copy", **source_of(garden.path))
            assert (done["state"], done["error_code"]) == ("failed", "EDQUOT")
            assert "(50000 bytes) are missing" in done["error"]
            assert await target.shown() == {}
            await target.worked.volume.set_quota(1_000_000, 10)
            done = await target.do(kind="copy", source_path="", target_path="copy", **source_of(garden.path))
            assert (done["state"], done["error_code"]) == ("failed", "EDQUOT") and "11 are missing" in done["error"]
            await target.worked.check_usage()

    on(kind, story)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_fills_in_the_middle_is_left_as_it_was(kind):
    async def story(target, garden, chance):
        for number in range(30):
            (garden.path / f"{number:02}").write_bytes(bytes(range(256)) * 40)
        async with target.opened():
            await target.worked.volume.set_quota(30 * 10240 + 100, None)
            operation_id = await target.submit(
                kind="copy", source_path="", target_path="copy", bytes_per_s=1_000_000, **source_of(garden.path)
            )
            while target.tasks.show(operation_id)["stage"] == "new":
                await trio.sleep(0.001)
            await target.worked.write("other", bytes(20_000))
            done = await target.tasks.wait(operation_id)
            assert (done["state"], done["error_code"]) == ("failed", "EDQUOT")
            assert set(await target.shown()) == {"other"}
            await target.worked.check_usage()

    on(kind, story)


class MoodyStore(HookedStore):
    """A bucket that fails for some keys. Attributes: errors: by the key's beginning, what is raised, and how often."""

    def __init__(self):
        super().__init__()
        self.errors = {}

    async def before(self, name, key):
        for beginning, (error, times) in self.errors.items():
            if name.startswith(("put", "complete")) and str(key).startswith(beginning) and times:
                self.errors[beginning] = error, times - 1
                raise error("moody")


@pytest.mark.parametrize(
    ("key", "error", "times", "state"),
    [
        ("other", InvalidArgument, 1000, "done"),  # what is not stored of others is not the copy's
        ("other", PermissionDenied, 1000, "done"),
        ("copy/", InvalidArgument, 1000, "failed"),
        ("copy/", Unavailable, 5, "done"),
    ],
)
def test_a_copy_ends_when_the_bucket_has_it_and_waits_for_one_that_does_not_answer(key, error, times, state):
    async def story(target, garden, chance):
        garden.grow(20)
        target.store = MoodyStore()
        target.store.errors[key] = error, times
        async with target.opened():
            await target.worked.write("other", b"of a user")
            await target.worked.backend.drain()
            done = await target.do(kind="copy", source_path="", target_path="copy", **source_of(garden.path))
            assert done["state"] == state, done
            if state == "failed":
                assert "refuses" in done["error"]
                assert set(await target.shown()) == {"other"}
            else:
                assert {key for key in target.store._objects if key.startswith("copy/")}
                await compare(target, "copy", garden)
                made = sum(len(folders) + len(files) for _, folders, files in os.walk(os.fsencode(garden.path)))
                assert done["report"]["created"] == made, "each name once, however often it was tried"
                done = await target.do(kind="sync", source_path="", target_path="", **source_of(garden.path))
                assert done["state"] == "done", done

    on("bucket", story)


class HeldStore(HookedStore):
    """A bucket whose uploads wait to fail once. Attributes: asked: whether one waits. fail: lets it."""

    def __init__(self):
        super().__init__()
        self.asked, self.fail = trio.Event(), trio.Event()

    async def before(self, name, key):
        if name == "put" and str(key) == "copy" and not self.fail.is_set():
            self.asked.set()
            await self.fail.wait()
            raise Unavailable("held")


def test_what_fails_while_it_is_paused_stays_paused_and_goes_on_when_it_is_told_to():
    async def story(target, garden, chance):
        target.store = HeldStore()
        (garden.path / "f").write_bytes(b"content")
        async with target.opened():
            operation_id = await target.submit(
                kind="copy", source_path="f", target_path="copy", **source_of(garden.path)
            )
            await target.store.asked.wait()
            await target.tasks.pause(operation_id)
            target.store.fail.set()
            with trio.fail_after(LIMIT_S):
                while not target.tasks.show(operation_id)["error"]:
                    await trio.sleep(0.01)
            assert target.tasks.show(operation_id)["state"] == "paused"
            assert (await target.tasks.resume(operation_id))["state"] == "waiting"
            with trio.fail_after(LIMIT_S):
                assert (await target.tasks.wait(operation_id))["state"] == "done"
            assert (await target.shown())["copy"][2] == b"content"

    on("bucket", story)


def test_what_the_server_does_not_copy_in_time_is_read_and_written():
    content = os.urandom(5 << 20)

    async def story(target, garden, chance):
        async with target.opened():
            await target.worked.write("large", content)
            assert await target.worked.backend.drain() == 0

            async def copy(*args, **kwargs):
                raise TimedOut

            target.store.copy = copy
            done = await target.do(kind="copy", source_path="large", target_path="copy")
            assert done["state"] == "done" and (await target.shown())["copy"][2] == content

    on("bucket", story)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_copy_leaves_nothing_and_a_paused_one_waits(kind):
    async def story(target, garden, chance):
        garden.grow(60)
        async with target.opened():
            request = {"kind": "copy", "source_path": "", "target_path": "copy", "bytes_per_s": 1_500_000}
            operation_id = await target.submit(**request, **source_of(garden.path))
            while not target.tasks.show(operation_id)["done_files"]:
                await trio.sleep(0.001)
            await target.tasks.pause(operation_id)
            await trio.sleep(0.1)
            before = target.tasks.show(operation_id)
            await trio.sleep(0.2)
            assert target.tasks.show(operation_id)["done_bytes"] == before["done_bytes"]
            assert before["state"] == "paused" and before["done_bytes"] < before["total_bytes"]
        async with target.opened():  # it is paused in the next process, too
            await trio.sleep(0.1)
            assert target.tasks.show(operation_id)["state"] == "paused"
            await target.tasks.resume(operation_id)
            with trio.fail_after(LIMIT_S):
                done = await target.tasks.cancel(operation_id)
            assert done["state"] == "cancelled"
            assert await target.shown() == {}
            await target.worked.check_usage()
        async with target.opened():
            assert target.tasks.show(operation_id)["state"] == "cancelled"
            assert await target.shown() == {}

    on(kind, story)


def test_a_source_that_changes_all_the_time_is_told():
    async def story(target, garden, chance):
        path = garden.path / "restless"
        path.write_bytes(os.urandom(20_000_000))
        (garden.path / "quiet").write_bytes(b"quiet")

        async def change():
            while True:
                with path.open("r+b") as file:
                    file.write(b"another")
                await trio.lowlevel.checkpoint()

        async with target.opened(), trio.open_nursery() as nursery:
            nursery.start_soon(change)
            for source, copied in (("", "tree"), ("restless", "one")):
                done = await target.do(kind="copy", source_path=source, target_path=copied, **source_of(garden.path))
                assert (done["state"], done["error_code"]) == ("failed", "EBUSY")
                assert "snapshot" in done["error"] and await target.shown() == {}
            nursery.cancel_scope.cancel()

    on("posix", story)


def test_what_a_bucket_cannot_keep_is_told_before_anything_is_copied():
    async def story(target, garden, chance):
        (garden.path / "one").write_bytes(b"1")
        os.link(garden.path / "one", garden.path / "other")
        async with target.opened():
            request = {"kind": "copy", "source_path": "", "target_path": "copy", **source_of(garden.path)}
            done = await target.do(**request)
            assert done["state"] == "failed" and "2 names of hard links" in done["error"]
            assert await target.shown() == {}
            done = await target.do(**request, accept_losses=True)
            assert done["state"] == "done" and len(done["report"]["losses"]) == 1
            assert set(await target.shown("copy")) == {"one", "other"}
            await target.worked.check_usage()

    on("bucket", story)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_within_a_volume_and_of_its_snapshot(kind):
    async def story(target, garden, chance):
        garden.grow(40)
        async with target.opened():
            await target.do(kind="copy", source_path="", target_path="one", **source_of(garden.path))
            await target.worked.snapshot("s1")
            await target.worked.write("one/later", b"later")
            done = await target.do(kind="copy", source_path="one", target_path="two")
            assert (done["state"], done["error"]) == ("done", "")
            assert await target.shown("two") == await target.shown("one")
            done = await target.do(kind="copy", snapshot_id="s1", source_path="one", target_path="three")
            assert (done["state"], done["error"]) == ("done", "")
            await compare(target, "three", garden)
            await target.worked.check_usage()

    on(kind, story)


class EndingStore(HookedStore):
    """A bucket that a process can ask no more. Attributes: at: from which request on, 0 = never. calls: all of them."""

    def __init__(self):
        super().__init__()
        self.at = 0
        self.ended = trio.Event()
        self.calls = []

    async def before(self, name, key):
        self.calls.append((name, key))
        if self.at and len(self.calls) >= self.at:
            self.ended.set()
            raise Unavailable("the process is gone")


def test_the_server_copies_a_large_object_and_a_process_may_end_at_each_request_of_it():
    content = os.urandom(5 << 20)

    async def copy(target, name, at):
        """Copy; returns whether there was such a request, at which the process ended."""
        request = {"kind": "copy", "source_path": "large", "target_path": name}
        with trio.CancelScope() as scope:
            async with target.opened(), trio.open_nursery() as nursery:
                target.store.calls.clear()
                target.store.at, target.store.ended = at, trio.Event()

                async def die():
                    await target.store.ended.wait()
                    await trio.sleep(0.01)
                    scope.cancel()

                nursery.start_soon(die)
                with contextlib.suppress(Unavailable):
                    await target.do(**request)
                if at and target.store.ended.is_set():
                    await trio.sleep_forever()
                nursery.cancel_scope.cancel()
        target.store.at = 0
        if scope.cancelled_caught:
            target.worked.backend._held.close()  # as the kernel does
            async with target.opened():
                known = [task["operation_id"] for task in target.tasks.list_all() if not task["ended_at"]]
                with trio.fail_after(LIMIT_S):
                    await (target.tasks.wait(known[0]) if known else target.do(**request))
        return scope.cancelled_caught

    async def check(target, name):
        async with target.opened():
            assert await target.worked.backend.drain() == 0
            assert (await target.shown())[name][2] == content
            await target.worked.check_usage()
        assert not [key for key in target.store._objects if key.startswith(".volgate/aside/")]

    async def story(target, garden, chance):
        target.store = EndingStore()
        async with target.opened():
            await target.worked.write("large", content)
            assert await target.worked.backend.drain() == 0
        await copy(target, "whole", 0)
        moved = [
            name for name, key in target.store.calls if name in ("get_range", "put", "put_part") and key == "whole"
        ]
        assert not moved and ("get_range", "large") not in target.store.calls
        await check(target, "whole")
        number, is_ended = 0, True
        while is_ended:
            number += 1
            is_ended = await copy(target, f"copy{number}", number)
            await check(target, f"copy{number}")

    on("bucket", story)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("end", ["by itself", "cancelled", "in the next process"])
def test_what_users_put_under_the_name_of_a_file_that_is_being_copied_stays(kind, what, end):
    async def story(target, garden, chance):
        (garden.path / "f").write_bytes(os.urandom(2_000_000))
        async with target.opened():
            operation_id = await target.submit(
                kind="copy", source_path="f", target_path="name", bytes_per_s=2_000_000, **source_of(garden.path)
            )
            while not target.tasks.show(operation_id)["done_bytes"]:
                await trio.sleep(0.001)
            if what == "folder":
                await target.worked.mkdir("name")
            await target.worked.write("name" if what == "file" else "name/below", b"precious")
            theirs = await target.shown()
            if end == "cancelled":
                assert (await target.tasks.cancel(operation_id))["state"] == "cancelled"
            elif end == "in the next process":
                await target.tasks.pause(operation_id)
            else:
                assert (await target.tasks.wait(operation_id))["error_code"] == "EEXIST"
            assert await target.shown() == theirs
        async with target.opened():
            assert await target.shown() == theirs
            if end == "in the next process":
                await target.tasks.resume(operation_id)
                assert (await target.tasks.wait(operation_id))["error_code"] == "EEXIST"
            assert await target.shown() == theirs
            await target.worked.check_usage()

    on(kind, story)


@pytest.mark.parametrize("end", ["by itself", "cancelled", "in the next process"])
def test_a_directory_keeps_its_place_while_a_copy_is_made_below_it_in_a_bucket(end):
    async def story(target, garden, chance):
        garden.grow(30)
        async with target.opened():
            for path in ("above", "above/within", "beside"):
                await target.worked.mkdir(path)
            before = await target.shown()
            operation_id = await target.submit(
                kind="copy", source_path="", target_path="above/within/copy", bytes_per_s=2_000_000,
                **source_of(garden.path),
            )  # fmt: skip
            while not target.tasks.show(operation_id)["done_bytes"]:
                await trio.sleep(0.001)
            for path in ("above", "above/within"):
                with pytest.raises(errors.Busy, match="a copy is being made"):
                    await target.worked.rename(path, "elsewhere")
                with pytest.raises(errors.Busy, match="a copy is being made"):
                    await target.worked.rename("beside", path)
            await target.worked.rename("beside", "another")
            await target.worked.rename("another", "beside")
            if end == "cancelled":
                assert (await target.tasks.cancel(operation_id))["state"] == "cancelled"
                assert await target.shown() == before
            elif end == "in the next process":
                await target.tasks.pause(operation_id)
        async with target.opened():
            if end == "in the next process":
                with pytest.raises(errors.Busy, match="a copy is being made"):
                    await target.worked.rename("above", "elsewhere")
                await target.tasks.resume(operation_id)
            if end != "cancelled":
                assert (await target.tasks.wait(operation_id))["state"] == "done"
                await compare(target, "above/within/copy", garden)
            await target.worked.rename("above", "elsewhere")
            await target.worked.check_usage()

    on("bucket", story)


def test_what_users_put_where_others_took_the_directory_of_a_copy_away_stays():
    async def story(target, garden, chance):
        garden.grow(30)
        async with target.opened():
            await target.worked.mkdir("above")
            operation_id = await target.submit(
                kind="copy", source_path="", target_path="above/copy", bytes_per_s=2_000_000, **source_of(garden.path)
            )
            while not target.tasks.show(operation_id)["done_bytes"]:
                await trio.sleep(0.001)
            await target.tasks.pause(operation_id)
            await target.worked.backend.drain()
        for key in [key for key in target.store._objects if key.startswith("above/")]:
            await target.store.delete(key)
        async with target.opened():
            await target.worked.mkdir("above")
            await target.worked.mkdir("above/copy")
            await target.worked.write("above/copy/theirs", b"precious")
            theirs = await target.shown()
            await target.tasks.resume(operation_id)
            done = await target.tasks.wait(operation_id)
            assert done["state"] == "failed" and "is gone" in done["error"], done
            assert await target.shown() == theirs

    on("bucket", story)


@pytest.mark.parametrize("source", ["f", ""])
def test_what_users_do_to_a_copy_that_is_shown_stays_though_its_task_has_not_ended(source):
    async def story(target, garden, chance):
        (garden.path / "f").write_bytes(b"copied")
        path = "copy" if source else "copy/f"
        async with target.opened():
            target.tasks._end = lambda *_: None  # the process ends just before it would note that
            operation_id = await target.submit(
                kind="copy", source_path=source, target_path="copy", **source_of(garden.path)
            )
            while path not in await target.shown():
                await trio.sleep(0.001)
            await target.tasks.pause(operation_id)
        async with target.opened():
            await target.worked.write(path, b"theirs", truncate=True)
            await target.tasks.resume(operation_id)
            assert (await target.tasks.wait(operation_id))["state"] == "done"
            assert (await target.shown())[path][2] == b"theirs"

    on("bucket", story)


@pytest.mark.parametrize("kind", KINDS)
def test_who_comes_second_to_a_name_takes_nothing_from_the_first(kind):
    async def story(target, garden, chance):
        garden.grow(40)
        async with target.opened():
            request = {"kind": "copy", "source_path": "", "target_path": "copy", **source_of(garden.path)}
            first = await target.submit(**request, bytes_per_s=3_000_000)
            while target.tasks.show(first)["stage"] == "new":
                await trio.sleep(0.001)
            second = await target.do(**request)
            with trio.fail_after(LIMIT_S):
                states = {(await target.tasks.wait(first))["state"], second["state"]}
            assert states == {"done", "failed"}
            await compare(target, "copy", garden)

    on(kind, story)


@pytest.mark.parametrize("kind", KINDS)
def test_syncs_that_make_the_same_directories_at_once_all_go_on(kind):
    async def story(target, garden, chance):
        for number in range(12):
            folder = Path(garden.path, *(f"d{i}" for i in range(number % 4)), f"n{number}")
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(chance.randbytes(5000))
        async with target.opened():
            request = {"kind": "sync", "source_path": "", "target_path": "copy", **source_of(garden.path)}
            syncs = [await target.submit(**request) for _ in range(4)]
            with trio.fail_after(LIMIT_S):
                ended = [await target.tasks.wait(operation_id) for operation_id in syncs]
            assert [(task["state"], task["error"]) for task in ended] == [("done", "")] * 4
            await compare(target, "copy", garden)

    on(kind, story)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "move"}, "kind"), ({"source_path": "../up"}, "no path"), ({"target_path": "a//b"}, "no path"),
        ({"target_path": "a\0b"}, "no path"), ({"target_path": ""}, "the name"),
        ({"target_path": ".volgate/x"}, "not the users'"), ({"target_path": "a/b"}, "into itself"),
        ({"source_path": "b/c"}, "written over"), ({"bytes_per_s": 0}, "0 bytes"),
        ({"bytes_per_s": "x"}, "bytes_per_s"), ({"delete": True}, "deletes nothing"), ({"surprise": 1}, "surprise"),
        ({"source_text": "x"}, "type and its text"),
        ({"source_path": 7}, "source_path"), ({"source_path": ".snapshots/a"}, "snapshot_id"),
    ],
)  # fmt: skip
def test_a_request_that_is_none_says_why(wrong, says):
    from volgate.errors import InvalidArgument

    with pytest.raises(InvalidArgument, match=says):
        to_request({"kind": "copy", "source_path": "a", "target_path": "b", **wrong})
