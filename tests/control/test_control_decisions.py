"""What the API decides without asking anybody: pages, problems, roles, turns."""

import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from volgate import errors
from volgate.control.app import make_app
from volgate.control.dto.fields import IN_WORDS
from volgate.control.paging import cut_page
from volgate.control.problems import CODES, Problem, Refusal, describe, from_problem, problem, to_problem
from volgate.control.roles import Grant, Principal, Role, parse_grant, parse_user_grants
from volgate.control.turns import Turns
from volgate.dto import StorageOperationError
from volgate.errors import InvalidArgument

keys = st.tuples(st.floats(0, 1e12), st.text(max_size=5))


@given(st.lists(keys, unique=True), st.integers(1, 5))
def test_pages_make_up_the_list_whatever_its_keys_are(items, limit):
    found, cursor = [], None
    while True:
        page, cursor = cut_page(items, lambda item: item, limit, cursor)
        assert len(page) <= limit and (page or cursor is None)
        found += page
        if cursor is None:
            break
    assert found == sorted(items)


@given(st.lists(keys, unique=True, min_size=2), keys)
def test_what_comes_or_goes_between_two_pages_repeats_and_hides_no_other(items, new):
    page, cursor = cut_page(items, lambda item: item, 1, None)
    later = [item for item in [*items, new] if item != page[0]]
    rest, _ = cut_page(later, lambda item: item, 1000, cursor)
    assert [item for item in rest if item != new] == sorted(item for item in items if item not in (page[0], new))


@given(st.text(alphabet="abcdefgWyJ10-_", max_size=30))
def test_a_cursor_that_no_page_gave_is_refused_or_means_a_place(cursor):
    try:
        page, _ = cut_page([("a",), ("b",)], lambda item: item, 10, cursor)
    except InvalidArgument:
        return
    assert page in ([], [("b",)], [("a",), ("b",)])


def tree(class_):
    return [class_, *(found for child in class_.__subclasses__() for found in tree(child))]


CLASSES = tree(errors.StorageException)[1:]


@pytest.mark.parametrize("class_", CLASSES, ids=lambda c: c.__name__)
def test_every_exception_goes_over_the_wire_and_comes_back(class_):
    context = StorageOperationError("write", "v", "a/b", "posix", "no", "EIO")
    status, body = to_problem(class_("why", context=context))
    back = from_problem(status, body)
    assert (type(back), str(back), back.context) == (class_, "why", context)
    assert 400 <= status < 600 and status != 500 and describe(class_()).code in CODES


def test_an_answer_of_an_older_daemon_is_known_by_its_status():
    for status, class_ in (
        (404, errors.NotFound),
        (409, errors.Busy),
        (503, errors.Unavailable),
        (418, InvalidArgument),
    ):
        assert type(from_problem(status, b'{"detail": "why"}')) is class_
    for content in (b"", b"[]", b"null", b"\xff", b'{"code": 1, "context": {"operation": 1}}', b'{"context": 7}'):
        assert isinstance(from_problem(404, content), errors.NotFound)


@given(st.text(), st.text(), st.sampled_from(["forbidden", "internal", "invalid_request"]))
def test_a_problem_is_json_whatever_its_words_are(detail, place, code):
    body = json.loads(Refusal(code, detail, invalid=((place, detail),)).problem.to_json())
    assert body["code"] == code and set(body) >= {"type", "title", "status", "detail"}
    assert json.loads(problem(404, detail))["code"] == "unknown_route"
    Problem(500, "x", detail).to_json().decode("ascii")


@given(st.sampled_from(Role), st.none() | st.sampled_from(["a", "b"]), st.sampled_from(Role), st.none() | st.just("a"))
def test_a_grant_holds_for_its_volume_and_lower_roles_alone(role, granted, wanted, volume_id):
    grant = Grant(role, granted)
    assert parse_grant(str(grant)) == grant
    allowed = role >= wanted and (granted is None or granted == volume_id)
    assert Principal("p", (grant,)).may(wanted, volume_id) == allowed
    assert not Principal("p", ()).may(wanted, volume_id)


@pytest.mark.parametrize("text", ["", "owner", "owner:", ":a", "owner:A", "owner:a/b", "king:a", "owner:**", "OWNER:a"])
def test_what_is_no_grant_is_refused(text):
    with pytest.raises(ValueError, match="is no grant"):
        parse_grant(text)


def test_grants_of_a_user_add_up():
    found = parse_user_grants(["ann=owner:a", "ann=reader:*,admin:b", "7=reader:a"])
    assert [str(grant) for grant in found["ann"]] == ["owner:a", "reader:*", "admin:b"]
    with pytest.raises(ValueError, match="USER=ROLE"):
        parse_user_grants(["ann"])


def test_turns_of_a_name_come_one_after_another_and_leave_nothing():
    turns, inside, most = Turns(), 0, 0

    async def take(name):
        nonlocal inside, most
        async with turns.of(name):
            inside += name == "a"
            most = max(most, inside)
            await trio.sleep(0)
            inside -= name == "a"

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(take, "a")
                nursery.start_soon(take, "b")
            with trio.move_on_after(0):
                await take("a")

    trio.run(main)
    assert most == 1 and turns._locks == {}


def test_every_pattern_of_the_api_is_told_in_words():
    def patterns(found):
        below = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        own = {found["pattern"]} if isinstance(found, dict) and isinstance(found.get("pattern"), str) else set()
        return own.union(*map(patterns, below))

    assert patterns(make_app(None).openapi()) - {"^[!-~]+$"} == set(IN_WORDS)  # that key is the door's


def test_what_nobody_foresaw_is_a_problem_too():
    sent = []

    async def ask():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "path": "/v1/volumes", "query_string": b"", "headers": [], "state": {
                "principal": Principal("root", ()),
            },
        }  # fmt: skip
        with pytest.raises(AttributeError):  # the door logs it
            await make_app(None)(scope, receive, send)

    trio.run(ask)
    assert sent[0]["status"] == 500 and json.loads(sent[1]["body"])["code"] == "internal"
    assert dict(sent[0]["headers"])[b"content-type"] == b"application/problem+json"
