"""Files of a volume without a mount's help: listed, made, moved, removed, read, written and packed over the socket."""

import contextlib
import http.client
import io
import json
import os
import socket
import stat
import tarfile
import urllib.parse
import zipfile
from functools import partial

import pytest
import trio
from trees import Garden, describe
from worked import Worked

import mounting
from mounting import used_of, walk_usage
from volgate.drivers.posix.backend import PosixBackend
from volgate.vfs.files import Files


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class Owner:
    def __init__(self, mount):
        self.path = f"/run/volgate/{mount.volume_id()}.sock"

    def ask(self, method, target, body=None, headers=None):
        with contextlib.closing(Connection(self.path)) as connection:
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def ok(self, verb, **body):
        status, content = self.ask("POST", f"/v1/files/{verb}", json.dumps(body))
        assert status == http.client.OK, content
        return json.loads(content)

    def refused(self, verb, **body):
        status, content = self.ask("POST", f"/v1/files/{verb}", json.dumps(body))
        assert status >= http.client.BAD_REQUEST, content
        return json.loads(content)["code"]

    def put(self, path, content, **parameters):
        return self.ask("PUT", f"/v1/files/content?{quote(path=path, **parameters)}", content)

    def get(self, path, what="content", **parameters):
        return self.ask("GET", f"/v1/files/{what}?{quote(path=path, **parameters)}")


def quote(**parameters):
    return urllib.parse.urlencode(parameters, errors="surrogateescape")


@pytest.fixture
def owner(volume):
    return Owner(volume)


def test_names_are_made_listed_moved_and_removed(volume, owner):
    owner.ok("mkdir", path="a/b/c", parents=True)
    assert owner.refused("mkdir", path="a") == "already_exists" and owner.refused("mkdir", path="x/y") == "not_found"
    for number in range(7):
        (volume.path / f"a/{number}").write_text("x" * number)
    (volume.path / "a/link").symlink_to("/etc/passwd")
    with open(os.path.join(os.fsencode(volume.path / "a"), b"\xff"), "w"):
        pass
    names, after, more = [], "", True
    while more:
        page = owner.ok("list", path="a", after=after, limit=3)
        names += [entry["name"] for entry in page["entries"]]
        after, more = names[-1], page["more"]
    assert names == [*"0123456", "b", "link", os.fsdecode(b"\xff")]
    found = owner.ok("stat", path="a/link")
    assert found["target"] == "/etc/passwd" and stat.S_ISLNK(found["mode"])
    assert owner.ok("stat", path="a/3")["size"] == 3
    assert (volume.path / "a/3").exists() and not (volume.path / "moved").exists()
    owner.ok("move", source="a/3", target="moved")
    assert not (volume.path / "a/3").exists() and (volume.path / "moved").read_text() == "xxx"
    for source, target, code in (
        ("moved", "a/4", "already_exists"), ("nothing", "x", "not_found"), ("a", "a/b/x", "invalid_argument"),
        ("a/link/x", "y", "not_a_directory"), ("moved", "a/link/x", "not_a_directory"), ("", "x", "invalid_argument"),
    ):  # fmt: skip
        assert owner.refused("move", source=source, target=target) == code, (source, target)
    assert owner.refused("delete", path="a") == "directory_not_empty"
    owner.ok("delete", path="a", recursive=True)
    assert os.listdir(volume.path) == ["moved"] and os.path.exists("/etc/passwd")
    assert used_of(volume) == walk_usage(volume.backing) == (3, 1)


def test_content_is_written_whole_and_read_in_parts(volume, owner):
    content = os.urandom(5 << 20)
    assert owner.put("f", content)[0] == http.client.OK
    assert (volume.path / "f").read_bytes() == content
    assert owner.get("f") == (http.client.OK, content)
    for offset, length in ((0, 10), (1 << 20, (1 << 20) + 1), (len(content) - 5, 100), (len(content), 5), (10**15, 1)):
        assert owner.get("f", offset=offset, length=length)[1] == content[offset : offset + length]
    assert json.loads(owner.put("f", b"new")[1])["code"] == "already_exists"
    assert (volume.path / "f").read_bytes() == content
    assert owner.put("f", b"new", overwrite="true")[0] == http.client.OK
    assert (volume.path / "f").read_bytes() == b"new"
    assert owner.put("", b"x")[0] >= http.client.BAD_REQUEST and owner.put("no/where", b"x")[0] == http.client.NOT_FOUND
    assert owner.get("f", offset="-1")[0] >= http.client.BAD_REQUEST
    assert json.loads(owner.get("nothing")[1])["code"] == "not_found"
    assert used_of(volume) == walk_usage(volume.backing) == (3, 1)


def test_an_upload_that_ends_early_or_does_not_fit_leaves_nothing(place):
    with mounting.mounted(place, "--quota", "1MiB") as mount:
        owner = Owner(mount)
        refused = owner.put("large", bytes(2 << 20))
        assert json.loads(refused[1])["code"] == "quota_exceeded"
        with contextlib.closing(Connection(owner.path)) as connection:
            connection.putrequest("PUT", "/v1/files/content?path=half")
            connection.putheader("content-length", "100000")
            connection.endheaders()
            connection.send(bytes(50_000))
            mounting.wait_until(lambda: os.listdir(mount.backing) != [".volgate"])
        mounting.wait_until(lambda: os.listdir(mount.backing) == [".volgate"])
        with contextlib.closing(Connection(owner.path)) as connection:
            connection.request("PUT", "/v1/files/content?path=f", iter([b"x"]), encode_chunked=True)
            assert json.loads(connection.getresponse().read())["code"] == "invalid_argument"
        assert os.listdir(mount.path) == [] and used_of(mount) == (0, 0)


def test_nothing_outside_is_reached_and_nothing_hidden(volume, owner):
    (volume.path / "out").symlink_to("/etc")
    for path in ("../etc/passwd", "/../etc/passwd", "a/../../etc", ".", "a//b", "out/passwd", ".volgate/identity.json",
                 ".snapshots", "a\0b", ".volgate-draft-x"):  # fmt: skip
        assert owner.refused("stat", path=path) in ("invalid_argument", "not_a_directory", "not_found"), path
        assert owner.get(path)[0] >= http.client.BAD_REQUEST, path
        assert owner.put(path, b"x", overwrite="true")[0] >= http.client.BAD_REQUEST, path
        assert owner.refused("delete", path=path, recursive=True)
    assert [entry["name"] for entry in owner.ok("list", path="")["entries"]] == ["out"]
    assert owner.refused("list", path="out") == "not_a_directory"
    for body in (b"[]", b"{", b'{"path": 7}', b'{"path": "", "more": 1}', b'{"path": "", "limit": 0}', b"[" * 50_000):
        assert owner.ask("POST", "/v1/files/list", body)[0] == http.client.BAD_REQUEST, body[:20]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_directory_is_packed_as_it_is(volume, owner, place, seed):
    garden = Garden(volume.path / "tree", seed)
    garden.grow(80)
    (garden.path / "out").symlink_to("/etc")
    status, content = owner.get("tree", "archive")
    assert status == http.client.OK
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        trusted = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}  # since 3.11.4
        archive.extractall(place / "unpacked", **trusted)
    keep = lambda tree: {path: (*found[:3], *found[5:]) for path, found in tree.items()}  # noqa: E731 - no times, xattrs
    assert keep(describe(place / "unpacked/tree")) == keep(describe(garden.path))
    status, content = owner.get("tree", "archive", format="zip")
    expected = describe(garden.path)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            mode, _, _, _, _, held, _ = (
                expected[info.filename.removeprefix("tree/").rstrip("/")]
                if (info.filename != "tree/")
                else (info.external_attr >> 16, 0, 0, 0, 0, None, "")
            )
            assert info.external_attr >> 16 == mode
            held = os.fsencode(held) if isinstance(held, str) else held or b""
            assert archive.read(info) == held, info.filename
        packed = {info.filename.rstrip("/") for info in archive.infolist()}
    others = {path for path, found in expected.items() if stat.S_ISFIFO(found[0])}
    assert packed == {"tree", *(f"tree/{path}" for path in expected.keys() - others)}
    assert json.loads(owner.get("tree", "archive", format="rar")[1])["code"] == "invalid_argument"
    assert json.loads(owner.get("tree/out", "archive")[1])["code"] == "invalid_argument"


def test_what_the_clock_of_zip_cannot_tell_is_packed_with_its_first_or_last_moment(volume, owner):
    (volume.path / "z").mkdir()
    years = {"long-ago": -(10**9), "before": 315532799, "now": 10**9, "after": 4354819200, "far": 10**10}
    for name, seconds in years.items():
        (volume.path / f"z/{name}").write_text(name)
        (volume.path / f"z/link-{name}").symlink_to(name)
        for path in (volume.path / f"z/{name}", volume.path / f"z/link-{name}"):
            os.utime(path, (seconds, seconds), follow_symlinks=False)
    os.utime(volume.path / "z", (10**10, 10**10))
    status, content = owner.get("z", "archive", format="zip")
    assert status == http.client.OK
    first, last = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
    told = {"long-ago": first, "before": first, "now": (2001, 9, 9, 1, 46, 40), "after": last, "far": last}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.getinfo("z/").date_time == last
        for name, moment in told.items():
            assert archive.read(f"z/{name}") == archive.read(f"z/link-{name}") == name.encode()
            assert archive.getinfo(f"z/{name}").date_time == archive.getinfo(f"z/link-{name}").date_time == moment


def test_a_path_that_zip_cannot_hold_cuts_the_archive_and_the_volume_is_served_on(place):
    with mounting.mounted(place, alarms=True) as mount:
        owner, name, deep = Owner(mount), "d" * 255, ["deep"]
        (mount.path / "deep").mkdir()
        folder = os.open(mount.path / "deep", os.O_RDONLY)
        for _ in range(65536 // 256):
            os.mkdir(name, dir_fd=folder)
            below = os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder, deep = below, [*deep, name]
        os.close(folder)
        with pytest.raises(http.client.IncompleteRead):
            owner.get("deep", "archive", format="zip")
        mounting.wait_until(lambda: "pack it as tar" in mount.log())
        assert "Traceback" not in mount.log()
        with tarfile.open(fileobj=io.BytesIO(owner.get("deep", "archive")[1])) as archive:
            assert archive.getnames()[-1] == "/".join(deep)


def test_devices_are_packed_with_their_numbers(volume, owner):
    (volume.path / "dev").mkdir()
    os.mknod(volume.path / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(volume.path / "dev/disk", stat.S_IFBLK | 0o600, os.makedev(259, 300))
    with tarfile.open(fileobj=io.BytesIO(owner.get("dev", "archive")[1])) as archive:
        null, disk = archive.getmember("dev/null"), archive.getmember("dev/disk")
    assert null.ischr() and (null.devmajor, null.devminor) == (1, 3)
    assert disk.isblk() and (disk.devmajor, disk.devminor) == (259, 300)


def test_nothing_is_left_of_an_upload_whose_owner_is_killed(place):
    with mounting.mounted(place) as mount:
        (mount.path / "folder").mkdir()
        owner = Owner(mount)
        connection = Connection(owner.path)
        connection.putrequest("PUT", f"/v1/files/content?{quote(path='folder/f')}")
        connection.putheader("Content-Length", str(10 << 20))
        connection.endheaders(bytes(3 << 20))
        drafts = mount.backing / "folder"
        mounting.wait_until(lambda: any(path.stat().st_size for path in drafts.iterdir()))
        mount.kill()
        connection.close()
    with mounting.mounted(place) as mount:
        mounting.wait_until(lambda: not os.listdir(mount.backing / "folder"))
        assert used_of(mount) == walk_usage(mount.backing)
        (mount.path / "folder").rmdir()
        assert owner.put("f", b"content")[0] == http.client.OK


class _Slow(PosixBackend):
    """Storage whose calls take their time. Attributes: overlapped: two replaced a file of the gateway's at once."""

    under_way = 0
    overlapped = False

    async def store_reserved(self, name, content):
        self.overlapped |= self.under_way > 0
        self.under_way += 1
        await trio.sleep(0.01)
        await super().store_reserved(name, content)
        self.under_way -= 1


def test_uploads_at_once_note_their_drafts_one_after_the_other(tmp_path):
    async def content():
        yield b"x"

    async def main():
        worked = await Worked.open(tmp_path, _Slow(tmp_path / "data"))
        files = Files(worked.fs, lambda touched: trio.lowlevel.checkpoint())
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(partial(files.write, b"%d" % number, 1, content(), overwrite=False))
        assert not worked.backend.overlapped
        await worked.close()

    trio.run(main)
    assert sorted(os.listdir(tmp_path / "data")) == [".volgate", "0", "1", "2", "3"]
