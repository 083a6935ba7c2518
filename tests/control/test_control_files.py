"""Files of a volume by the API: content of any length, ranges, archives, and nothing outside."""

import contextlib
import http.client
import io
import os
import tarfile
from urllib.parse import quote

import pytest

from controlling import UnixConnection, converse


@pytest.fixture
def volume(api, name, place):
    """Return the path of a mounted volume, and of its files in the API."""
    (place / "data").mkdir()
    api.ok("POST", "/v1/volumes", {"volume_id": name, "source": str(place / "data"), "mount_point": str(place / "mnt")})
    api.ok("POST", f"/v1/volumes/{name}/mount")
    try:
        yield place / "mnt", f"/v1/volumes/{name}/files"
    finally:
        api.ask("POST", f"/v1/volumes/{name}/unmount", {"lazy": True})


def send(api, method, target, content=None, **headers):
    with contextlib.closing(UnixConnection(api.path)) as connection:
        connection.request(method, target, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_content_goes_in_and_out(api, volume):
    path, files = volume
    content = os.urandom(9 << 20)
    status, _, stored = send(api, "PUT", f"{files}/content?path=f", content)
    assert status == http.client.CREATED, stored
    assert (path / "f").read_bytes() == content
    status, headers, found = send(api, "GET", f"{files}/content?path=f")
    assert (status, found) == (http.client.OK, content) and headers["content-length"] == str(len(content))
    assert headers["x-content-type-options"] == "nosniff" and headers["etag"]
    for asked, begin, end in (("0-9", 0, 10), ("1048576-", 1 << 20, None), ("-7", len(content) - 7, None)):
        status, headers, found = send(api, "GET", f"{files}/content?path=f", Range=f"bytes={asked}")
        assert (status, found) == (http.client.PARTIAL_CONTENT, content[begin:end]), asked
        assert headers["content-range"] == f"bytes {begin}-{(end or len(content)) - 1}/{len(content)}"
    refused = api.ask("GET", f"{files}/content?path=f", headers={"Range": f"bytes={len(content)}-"})
    assert (refused.status, refused.code) == (416, "range_not_satisfiable")
    assert api.ask("PUT", f"{files}/content?path=f", {}).code == "already_exists"
    assert send(api, "PUT", f"{files}/content?path=f&overwrite=true", b"new")[0] == http.client.CREATED
    assert (path / "f").read_bytes() == b"new"
    keyed = api.ask("PUT", f"{files}/content?path=g", {}, {"Idempotency-Key": "one"})
    assert keyed.code == "malformed_request"
    status, _, refused = send(api, "PUT", f"{files}/content?path=g", iter([b"x"]))
    assert status == http.client.LENGTH_REQUIRED


def test_the_limit_is_asked_before_content_is_read(api, volume, name):
    path, files = volume
    api.ok("PATCH", f"/v1/volumes/{name}/quota", {"quota_bytes": 1 << 20})
    status, _, refused = send(api, "PUT", f"{files}/content?path=f", bytes(3 << 20))
    assert status == http.client.INSUFFICIENT_STORAGE and b"quota_exceeded" in refused
    assert os.listdir(path) == []


def test_what_does_not_fit_is_refused_by_its_head(api, volume, name):
    path, files = volume
    api.ok("PATCH", f"/v1/volumes/{name}/quota", {"quota_bytes": 1 << 20})
    for sent in (0, 200_000):
        with contextlib.closing(UnixConnection(api.path)) as connection:
            connection.putrequest("PUT", f"{files}/content?path=f")
            connection.putheader("content-length", str(3 << 30))
            connection.endheaders(bytes(sent))
            answer = connection.getresponse()  # while the rest is still to be sent
            assert answer.status == http.client.INSUFFICIENT_STORAGE and b"quota_exceeded" in answer.read()
    assert os.listdir(path) == []


def test_a_client_that_waits_is_asked_for_its_body_only_where_it_is_read(api, volume, name):
    path, files = volume
    api.ok("PATCH", f"/v1/volumes/{name}/quota", {"quota_bytes": 1 << 20})
    directory = b'{"path": "d"}'
    for method, target, length, body, expected in (
        ("PUT", f"{files}/content?path=f", 3 << 30, b"", [b"507"]),
        ("POST", f"{files}/mkdir", 3 << 30, b"", [b"413"]),
        ("PUT", f"{files}/content?path=f", 4, b"some", [b"100", b"201"]),
        ("POST", f"{files}/mkdir", len(directory), directory, [b"100", b"201"]),
    ):
        with contextlib.closing(UnixConnection(api.path)) as connection:
            connection.putrequest(method, target)
            for header, value in (
                ("content-length", length), ("expect", "100-continue"), ("content-type", "application/json"),
            ):  # fmt: skip
                connection.putheader(header, str(value))
            connection.endheaders()
            with connection.sock.makefile("rb") as answer:
                found = [answer.readline().split()[1]]
                if found == [b"100"]:
                    assert answer.readline() == b"\r\n"
                    connection.sock.sendall(body)
                    found.append(answer.readline().split()[1])
                assert found == expected, target
    assert sorted(os.listdir(path)) == ["d", "f"] and (path / "f").read_bytes() == b"some"


def test_names(api, volume):
    path, files = volume
    made = api.ok("POST", f"{files}/mkdir", {"path": "a/b", "parents": True})
    assert (made["name"], made["type"]) == ("b", "directory")
    for number in range(5):
        (path / f"a/{number}").write_text("x" * number)
    (path / "a/out").symlink_to("/etc/passwd")
    with open(os.path.join(os.fsencode(path / "a"), b"\xff"), "w"):
        pass
    items = api.all_items(f"{files}?path=a", 2)
    assert [item["name"] for item in items] == [*"01234", "b", "out", r"\xff"]
    assert items[6]["target"] == "/etc/passwd" and items[3]["size"] == 3 and items[3]["type"] == "file"
    assert api.ok("GET", f"{files}/stat?path=a/3")["size"] == 3
    api.ok("POST", f"{files}/move", {"source": "a/3", "target": "moved"})
    assert (path / "moved").read_text() == "xxx"
    assert api.ask("POST", f"{files}/move", {"source": "moved", "target": "a/4"}).code == "already_exists"
    assert api.ask("POST", f"{files}/delete", {"path": "a"}).code == "directory_not_empty"
    api.ok("POST", f"{files}/delete", {"path": "a", "recursive": True})
    assert os.listdir(path) == ["moved"]
    assert api.ask("GET", f"{files}?path=moved").code == "not_a_directory"
    assert api.ask("GET", f"{files}?cursor=WyIxIiwiMiJd").code == "invalid_argument"


def test_a_name_that_is_no_text_is_shown_and_means_no_other_file(api, volume):
    path, files = volume
    for name in (b"q\xff", rb"q\xff", "ü".encode()):
        with open(os.path.join(os.fsencode(path), name), "w"):
            pass
    shown = [(item["name"], item["addressable"]) for item in api.ok("GET", files)["items"]]
    assert shown == [(r"q\xff", True), (r"q\xff", False), ("ü", True)]
    assert api.ok("GET", f"{files}/stat?path=%C3%BC")["addressable"] is True
    for method, target in (
        ("GET", "/stat?path=q%ff"), ("GET", "/content?path=q%ff"), ("GET", "/archive?path=%ed%b3%bf"),
        ("PUT", "/content?path=x%ff"), ("PUT", "/content?path=y&overwrite=%ff"), ("GET", "?path=&cursor=%c3"),
    ):  # fmt: skip
        refused = api.ask(method, files + target, {} if method == "PUT" else None)
        assert (refused.status, refused.code) == (400, "malformed_request"), target
    assert api.ask("POST", f"{files}/delete", {"path": "q\udcff"}).code == "invalid_request"
    api.ok("POST", f"{files}/delete", {"path": r"q\xff"})
    assert sorted(os.listdir(os.fsencode(path))) == [b"q\xff", "ü".encode()]


@pytest.mark.parametrize(
    ("target", "place", "words"),
    [
        ("/v1/volumes/v/files?path=/", "query.path", "relative to the volume's root, without a leading slash"),
        ("/v1/events?after=0", "query.after", "two numbers such as 1-0"),
        ("/v1/volumes/V/files", "path.volume_id", "1 to 63 of a-z"),
    ],
)
def test_what_a_text_should_look_like_is_told_in_words(api, target, place, words):
    refused = api.ask("GET", target)
    (wrong,) = refused.json["invalid"]
    assert (refused.code, wrong["place"]) == ("invalid_request", place) and words in wrong["reason"], wrong
    assert "pattern" not in refused.json["detail"]


def test_a_directory_in_one_piece(api, volume):
    path, files = volume
    (path / "d/e").mkdir(parents=True)
    (path / "d/e/ü").write_bytes(b"content" * 1000)
    (path / "d/out").symlink_to("/etc")
    status, headers, content = send(api, "GET", f"{files}/archive?path=d")
    assert status == http.client.OK and "d.tar" in headers["content-disposition"]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["d", "d/e", "d/e/ü", "d/out"]
        assert archive.extractfile("d/e/ü").read() == b"content" * 1000 and archive.getmember("d/out").issym()
    assert send(api, "GET", f"{files}/archive?path=d&format=zip")[2][:2] == b"PK"
    assert api.ask("GET", f"{files}/archive?path=d&format=rar").code == "invalid_request"
    assert api.ask("GET", f"{files}/archive?path=nothing").code == "not_found"


@pytest.mark.parametrize("path", ["../etc/passwd", "/etc/passwd", "a/../../b", "out/passwd", ".volgate/identity.json",
                                  ".volgate-draft-x", "a//b", "a\0b", "."])  # fmt: skip
def test_nothing_outside_is_reached(api, volume, path):
    (volume[0] / "out").symlink_to("/etc")
    for method, target, body in (
        ("GET", f"/content?path={quote(path)}", None), ("GET", f"/stat?path={quote(path)}", None),
        ("GET", f"/archive?path={quote(path)}", None), ("PUT", f"/content?path={quote(path)}&overwrite=true", {}),
        ("POST", "/delete", {"path": path, "recursive": True}), ("POST", "/mkdir", {"path": path}),
        ("POST", "/move", {"source": path, "target": "x"}), ("POST", "/move", {"source": "out", "target": path}),
    ):  # fmt: skip
        answer = api.ask(method, f"{volume[1]}{target}", body)
        assert 400 <= answer.status < 500, (method, target, answer)
    assert os.listdir(volume[0]) == ["out"] and os.path.exists("/etc/passwd")


def test_an_upload_that_ends_early_leaves_nothing(api, volume):
    path, files = volume
    with contextlib.closing(UnixConnection(api.path)) as connection:
        connection.putrequest("PUT", f"{files}/content?path=half")
        connection.putheader("content-length", "100000")
        connection.endheaders()
        connection.send(bytes(50_000))
    with contextlib.closing(UnixConnection(api.path)) as connection:
        assert converse(connection, "GET", files).json["items"] == []
    assert os.listdir(path) == []
