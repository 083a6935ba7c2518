"""The page's files and what goes with them, by a plain client: who gets them, with which headers, and ``/v1/me``."""

import contextlib
import http.client
import re
import signal
import ssl
import urllib.parse
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

import browsing
from controlling import UnixConnection, converse
from volgate.control import convert
from volgate.control.page import FILES
from volgate.control.roles import Grant, Principal, Role

LONG_S = 15
"""Half of what answers under way get."""
ids = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@pytest.fixture(scope="module")
def site(module_place):
    with browsing.site_at(module_place / "site") as site:
        yield site


def ask(site, method, target, headers=None):
    place = urllib.parse.urlsplit(site.url)
    connection = http.client.HTTPSConnection(
        place.hostname, place.port, timeout=60, context=ssl._create_unverified_context()
    )
    with contextlib.closing(connection):
        return converse(connection, method, target, None, headers)


def test_whoever_connects_gets_the_page_and_nothing_else(site):
    for path, file in FILES.items():
        answer = ask(site, "GET", path)
        assert (answer.status, answer.content) == (200, file.content)
        assert answer.headers["content-type"].split(";")[0] in (
            "text/html", "text/css", "text/javascript", "image/svg+xml",
        )  # fmt: skip
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["img-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers
    for path in (
        "/page/",
        "/page/__init__.py",
        "/page/../page/page.js/",
        "/v1/me",
        "/v1/volumes",
        "/favicon.ico",
        "//",
    ):
        assert ask(site, "GET", path).code == "unauthenticated"
        assert site.api.ask("GET", path).status in (200, 404)


def test_a_browser_that_has_a_file_is_not_sent_it_again(site):
    first = site.api.ask("GET", "/page/page.js")
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = site.api.ask("GET", "/page/page.js", headers={"If-None-Match": known})
        assert (again.status, again.content, again.headers["etag"]) == (304, b"", etag)
        assert "content-security-policy" in again.headers
    assert site.api.ask("GET", "/page/page.js", headers={"If-None-Match": '"other"'}).status == 200
    assert len({file.etag for file in FILES.values()}) == len(FILES)
    refused = site.api.ask("POST", "/")
    assert (refused.code, refused.headers["allow"]) == ("method_not_allowed", "GET")


def test_the_page_is_whole_and_has_nothing_from_elsewhere():
    folder = files("volgate.control.page")
    names = {file.name for file in folder.iterdir() if not file.name.startswith("__")}
    assert {"/" if name == "index.html" else f"/page/{name}" for name in names} == set(FILES)
    for name in names:
        text = (folder / name).read_text()
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|<script>|<style| style=", text
        )
        for other in re.findall(r'from "\./([a-z.]+)"|"/page/([a-z.]+)"', text):
            assert (other[0] or other[1]) in names


def test_who_asks_is_told_what_he_may(site):
    assert site.api.ok("GET", "/v1/me") == {"name": "uid:0", "grants": [{"role": "admin", "volume_id": None}]}
    token = site.token("ann", "owner:projects", "reader:*")
    answer = ask(site, "GET", "/v1/me", {"Authorization": f"Bearer {token}"})
    assert answer.json == {
        "name": "token:ann",
        "grants": [{"role": "owner", "volume_id": "projects"}, {"role": "reader", "volume_id": None}],
    }
    assert ask(site, "GET", "/v1/me").code == "unauthenticated"


@given(st.builds(Principal, ids, st.lists(st.builds(Grant, st.sampled_from(Role), st.none() | ids)).map(tuple)))
def test_a_principal_goes_out_and_comes_back(principal):
    assert convert.from_principal_response(convert.to_principal_response(principal)) == principal


def test_who_comes_back_misses_no_event_though_he_saw_none(site, place, name):
    def begin(headers):
        connection = UnixConnection(site.api.path)
        connection.request("GET", "/v1/events/stream", headers=headers)
        return connection, connection.getresponse()

    connection, stream = begin({})
    with contextlib.closing(connection):
        assert stream.readline() == b": volgate\n"
        line = stream.readline().decode()
        assert stream.readline() == b"\n"
    assert line.startswith("id: ")
    (place / "data").mkdir()
    site.api.ok("POST", "/v1/volumes", {"volume_id": name, "source": f"{place}/data"})
    site.api.ok("DELETE", f"/v1/volumes/{name}")
    connection, stream = begin({"Last-Event-ID": line.removeprefix("id: ").strip()})
    with contextlib.closing(connection):
        while not (line := stream.readline()).startswith(b"event: "):
            assert line
    assert line == b"event: volume.created\n"


def test_a_stop_does_not_wait_for_those_who_follow_events(place):
    with browsing.site_at(place / "site") as site:
        connection = UnixConnection(site.api.path)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/events/stream")
            stream = connection.getresponse()
            assert stream.readline() == b": volgate\n"
            site.api.process.send_signal(signal.SIGTERM)
            assert site.api.process.wait(LONG_S) == 0
            assert stream.read().startswith(b"id: ")  # and the answer has an end
