"""A storage's own snapshots that others replace behind the volume, and notes of them that do not fit."""

import contextlib
import itertools
import json
import logging
import os
import shutil

import attrs
import pytest
import trio
from worked import Worked

from volgate.copies.request import to_request
from volgate.copies.tasks import Tasks
from volgate.daemon.activity import Activity
from volgate.daemon.snapshots import routes
from volgate.drivers.base import NativeSnapshot
from volgate.drivers.posix.backend import PosixBackend
from volgate.drivers.posix.open_file import PosixDirectory
from volgate.dto import Usage
from volgate.errors import NotFound, Stale

BORN = itertools.count(1_000)


class Snapping(PosixBackend):
    """A storage that takes snapshots: copies of its data. One that is removed lists as empty, as ceph-fuse has it.

    Attributes:
        while_reading: called once, when a snapshot was opened.
    """

    def __init__(self, place):
        super().__init__(place / "data")
        self.place = place / "copies"
        self.place.mkdir(exist_ok=True)
        self.born = {name: next(BORN) for name in sorted(os.listdir(self.place))}
        self.while_reading = lambda: None

    @property
    def capabilities(self):
        return attrs.evolve(super().capabilities, native_snapshots=True)

    def take(self, name):
        shutil.copytree(self.source, self.place / name, ignore=shutil.ignore_patterns(".volgate"))
        self.born[name] = next(BORN)

    def remove_snapshot(self, name):
        shutil.rmtree(self.place / name)
        del self.born[name]

    def replace(self, name):
        self.remove_snapshot(name)
        self.take(name)

    async def create_snapshot(self, name):
        self.take(name)

    async def list_snapshots(self):
        return [NativeSnapshot(name, born) for name, born in self.born.items()]

    async def open_snapshot(self, name):
        try:
            root = PosixDirectory(os.open(self.place / name, os.O_RDONLY | os.O_DIRECTORY))
        except FileNotFoundError as error:
            raise NotFound from error
        then, self.while_reading = self.while_reading, lambda: None
        then()
        return root

    async def delete_snapshot(self, name):
        self.remove_snapshot(name)


class Served:
    """A session that nobody uses."""

    def is_serving(self):
        return True

    async def drop_caches(self, changed=()):
        """Nothing is cached."""


class Asked:
    """A volume on such a storage, and what people ask of its snapshots."""

    @classmethod
    async def open(cls, place):
        self = cls()
        self.backend = Snapping(place)
        self.worked = await Worked.open(place, self.backend)
        self.routes, self.go_on = routes(self.worked.fs, Served(), Activity())
        return self

    async def ask(self, method, verb="", **body):
        _, _, content = await self.routes[method, f"/v1/snapshots{verb}"](json.dumps(body).encode())
        return json.loads(content)

    async def diff(self, snapshot_id="s1"):
        return {change["path"]: change["change"] for change in await self.ask("POST", "/diff", snapshot_id=snapshot_id)}

    async def names(self):
        return sorted(await self.worked.tree())

    def write_notes(self, content):
        (self.worked.place / "data/.volgate/snapshot-notes.json").write_text(content)


def on_a_volume(place, scenario):
    async def run():
        asked = await Asked.open(place)
        try:
            await asked.worked.write("f", b"f")
            await scenario(asked)
        finally:
            await asked.worked.close()

    trio.run(run)


def test_a_snapshot_that_others_replaced_is_the_new_one_everywhere(place):
    async def scenario(asked):
        await asked.ask("POST", snapshot_id="s1", metadata={"why": "because"})
        assert sorted(await asked.worked.tree_of("s1")) == ["f"]
        await asked.worked.write("later", b"later")
        assert await asked.diff() == {"later": "added"}
        asked.backend.replace("s1")
        assert await asked.diff() == {}
        assert sorted(await asked.worked.tree_of("s1")) == ["f", "later"]
        (info,) = await asked.ask("GET")
        assert (info["created_at"], info["metadata"]) == (asked.backend.born["s1"], {})
        await asked.worked.remove("f")
        await asked.ask("POST", "/restore", snapshot_id="s1")
        assert await asked.names() == ["f", "later"]

    on_a_volume(place, scenario)


@pytest.mark.parametrize("verb", ["/diff", "/restore"])
@pytest.mark.parametrize(("what", "error"), [("replace", Stale), ("remove_snapshot", NotFound)])
def test_a_snapshot_that_others_take_away_while_it_is_read_removes_nothing(place, verb, what, error):
    async def scenario(asked):
        await asked.ask("POST", snapshot_id="s1")
        asked.backend.while_reading = lambda: getattr(asked.backend, what)("s1")
        with pytest.raises(error):
            await asked.ask("POST", verb, snapshot_id="s1")
        assert await asked.names() == ["f"]
        assert await asked.worked.backend.load_reserved("restore.json") in (None, b"null")

    on_a_volume(place, scenario)


def test_a_note_of_an_earlier_version_holds_until_its_snapshot_is_replaced(place):
    async def scenario(asked):
        asked.backend.take("s1")
        asked.write_notes(
            json.dumps({"s1": {"created_at": 5, "file_count": 1, "used_bytes": 2, "metadata": {"a": "b"}}})
        )
        (info,) = await asked.ask("GET")
        assert (info["created_at"], info["metadata"]) == (5, {"a": "b"})
        await asked.ask("POST", snapshot_id="s2")
        assert [info["metadata"] for info in await asked.ask("GET") if info["snapshot_id"] == "s1"] == [{"a": "b"}]
        asked.backend.replace("s1")
        assert [info["metadata"] for info in await asked.ask("GET") if info["snapshot_id"] == "s1"] == [{}]

    on_a_volume(place, scenario)


GOOD = {"created_at": 5, "file_count": 1, "used_bytes": 2, "metadata": {"a": "b"}}


@pytest.mark.parametrize(
    "note",
    [
        "x", None, [], {"created_at": "x"}, {**GOOD, "created_at": "x", "metadata": None}, {**GOOD, "metadata": 5},
        {**GOOD, "metadata": {"a": 5}}, {**GOOD, "file_count": -1}, {**GOOD, "used_bytes": -1},
        {**GOOD, "used_bytes": 1.5}, {**GOOD, "created_at": float("inf")}, {**GOOD, "created_at": float("nan")},
        {**GOOD, "created_at": 1e300}, {**GOOD, "born_at": "x"}, {"metadata": {}},
    ],
)  # fmt: skip
def test_a_note_that_does_not_fit_is_dropped_by_itself(place, caplog, note):
    async def scenario(asked):
        asked.backend.take("s1")
        asked.backend.take("s2")
        asked.write_notes(json.dumps({"s1": note, "s2": GOOD}))
        for _ in range(2):
            assert [(info["snapshot_id"], info["metadata"]) for info in await asked.ask("GET")] == [
                ("s2", {"a": "b"}), ("s1", {}),
            ]  # fmt: skip
        assert await asked.diff("s1") == {}
        await asked.ask("POST", "/restore", snapshot_id="s1")
        await asked.ask("POST", snapshot_id="s3", metadata={"c": "d"})
        assert {info["snapshot_id"]: info["metadata"] for info in await asked.ask("GET")} == {
            "s1": {}, "s2": {"a": "b"}, "s3": {"c": "d"},
        }  # fmt: skip

    with caplog.at_level(logging.WARNING):
        on_a_volume(place, scenario)
    assert [record.snapshot for record in caplog.records] == ["s1"]


@pytest.mark.parametrize("content", ["", "x", "[]", "5", "\xff", '{"s1": 1' + "0" * 5000 + "}"])
def test_notes_that_are_none_at_all_are_dropped(place, content):
    async def scenario(asked):
        asked.backend.take("s1")
        asked.write_notes(content)
        assert [info["metadata"] for info in await asked.ask("GET")] == [{}]
        await asked.ask("POST", snapshot_id="s2", metadata={"c": "d"})
        assert [info["metadata"] for info in await asked.ask("GET")] == [{}, {"c": "d"}]

    on_a_volume(place, scenario)


def test_a_usage_that_was_counted_below_zero_is_noted_as_nothing(place):
    async def scenario(asked):
        snapshots = asked.worked.volume.snapshots
        snapshots._usage = lambda: Usage(-5, -1)
        await asked.ask("POST", snapshot_id="s1")
        (info,) = await asked.ask("GET")
        assert (info["used_bytes"], info["file_count"]) == (0, 0)

    on_a_volume(place, scenario)


@pytest.mark.parametrize(
    "noted",
    [
        {"snapshot_id": "s1", "path": 5, "transfer_id": "x"}, {"snapshot_id": 5, "path": "", "transfer_id": "ab"},
        {"snapshot_id": "s1", "path": "", "transfer_id": 5}, {"snapshot_id": "s1", "path": "", "transfer_id": "../x"},
        {"snapshot_id": "s1", "path": "a\0b", "transfer_id": "ab"}, {"snapshot_id": "s1"}, [1], 5, "x",
        {"snapshot_id": "s1", "path": "\ud800", "transfer_id": "ab"},
        {"snapshot_id": "s1", "path": "", "transfer_id": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_restore_that_is_noted_wrongly_is_told_and_forgotten(place, caplog, noted):
    async def scenario(asked):
        asked.backend.take("s1")
        await asked.worked.write("new", b"new")
        await asked.backend.store_reserved("restore.json", json.dumps(noted).encode())
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asked.go_on)
                while await asked.backend.load_reserved("restore.json") != b"null":
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert await asked.backend.load_reserved("restore.json") == b"null"
        assert await asked.names() == ["f", "new"]

    on_a_volume(place, scenario)
    assert [record.levelno for record in caplog.records if record.levelno >= logging.ERROR] == [logging.ERROR]


@pytest.mark.parametrize("what", ["replace", "remove_snapshot"])
def test_a_sync_of_a_snapshot_that_others_take_away_removes_nothing(place, what):
    async def scenario(asked):
        fs = asked.worked.fs
        await asked.ask("POST", snapshot_id="s1")
        await asked.worked.mkdir("target")
        await asked.worked.write("target/f", b"of the target")

        async def nothing(*_):
            pass

        tasks = Tasks(fs, nothing, nothing, lambda name: contextlib.nullcontext(), "data")
        request = to_request({
            "kind": "sync", "source_path": "", "target_path": "target", "snapshot_id": "s1", "delete": True,
        })  # fmt: skip
        async with trio.open_nursery() as nursery:
            await tasks.load()
            nursery.start_soon(tasks.run)
            look, taken = asked.backend.list_names, []

            async def look_late(directory):
                if not taken and tasks.list_all()[0]["stage"] == "begun":
                    taken.append(True)
                    getattr(asked.backend, what)("s1")
                return await look(directory)

            asked.backend.list_names = look_late
            task = await tasks.submit(request)
            with trio.fail_after(30):
                done = await tasks.wait(task["operation_id"])
            assert done["state"] == "failed" and "taken away" in done["error"], done
            nursery.cancel_scope.cancel()
        assert "target/f" in await asked.names()

    on_a_volume(place, scenario)
