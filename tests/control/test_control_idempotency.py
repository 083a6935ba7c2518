"""A change that is asked for twice with one key is done once: at once, meanwhile, and after a restart."""

import contextlib
import http.client
import os
import signal
import sqlite3
import threading
import uuid

import pytest

import controlling
from mounting import wait_until
from volgate.control.idempotency import KEPT_S, Answer, KeptAnswers
from volgate.control.problems import Refusal
from volgate.errors import Unsupported


def key():
    return {"Idempotency-Key": uuid.uuid4().hex}


def test_the_same_request_gets_the_same_answer_and_is_done_once(api, mounted_name):
    url, with_key = f"/v1/volumes/{mounted_name}/snapshots", key()
    first = api.ask("POST", url, {"metadata": {"a": "b"}}, with_key)
    again = api.ask("POST", url, {"metadata": {"a": "b"}}, with_key)
    assert first.status == again.status == 201 and first.content == again.content
    assert "idempotency-replayed" not in first.headers and again.headers["idempotency-replayed"] == "true"
    assert len(api.ok("GET", url)["items"]) == 1
    other = api.ask("POST", url, {"metadata": {"a": "c"}}, with_key)
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert api.ask("DELETE", f"/v1/volumes/{mounted_name}", None, with_key).code == "idempotency_key_reused"


def test_a_failure_is_an_answer_too_but_a_refused_request_leaves_its_key_free(api, made):
    url, with_key = f"/v1/volumes/{made}", key()
    assert api.ask("POST", f"{url}/unmount", None, with_key).code == "not_mounted"
    again = api.ask("POST", f"{url}/unmount", None, with_key)
    assert (again.code, again.headers["idempotency-replayed"]) == ("not_mounted", "true")
    with_key = key()
    assert api.ask("PATCH", url, {"frob": 1}, with_key).code == "invalid_request"
    assert api.ask("PATCH", url, {"options": ""}, with_key).status == 200
    assert api.ask("PATCH", url, {"options": ""}, {"Idempotency-Key": "x" * 256}).code == "malformed_request"


def test_an_answer_outlives_a_restart_and_what_was_cut_off_is_not_done_again(place, name):
    (place / "data").mkdir()
    body, with_key = {"volume_id": name, "source": f"{place}/data"}, key()
    with controlling.serving(place) as api:
        first = api.ask("POST", "/v1/volumes", body, with_key)
        assert first.status == 201
        api.process.kill()
        api.process.wait()
    with controlling.serving(place) as api:  # the socket of the killed one is stale
        again = api.ask("POST", "/v1/volumes", body, with_key)
        assert again.content == first.content and again.headers["idempotency-replayed"] == "true"
        api.ok("DELETE", f"/v1/volumes/{name}")
        assert api.ask("POST", "/v1/volumes", body, with_key).content == first.content
        assert api.ask("GET", f"/v1/volumes/{name}").status == 404


def stopped_owner(api, name):
    """Let the owner of a volume stand still; return what lets it go on."""
    pid = api.ok("GET", f"/v1/volumes/{name}/status")["pid"]
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def gone(call):
    """Call what ends without an answer."""
    with pytest.raises((OSError, http.client.HTTPException)):
        call()


def in_background(call):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def has_begun(with_key):
    with contextlib.closing(sqlite3.connect("/var/lib/volgate/control-answers.db")) as database:
        query = "SELECT count(*) FROM answers WHERE key = ?"
        return database.execute(query, (with_key["Idempotency-Key"],)).fetchone()[0] == 1


def is_under_way(api, url, with_key):
    answer = api.ask("POST", url, {}, with_key)
    return answer.status == 409 and (answer.code, answer.headers["retry-after"]) == ("request_in_progress", "1")


def test_a_request_that_is_under_way_is_not_done_a_second_time(api, mounted_name):
    url, with_key = f"/v1/volumes/{mounted_name}/snapshots", key()
    go_on = stopped_owner(api, mounted_name)
    try:
        thread, first = in_background(lambda: api.ask("POST", url, {}, with_key))
        wait_until(lambda: has_begun(with_key))
        assert is_under_way(api, url, with_key)
    finally:
        go_on()
    thread.join()
    assert first[0].status == 201 and api.ask("POST", url, {}, with_key).content == first[0].content
    assert len(api.ok("GET", url)["items"]) == 1


def test_a_change_in_whose_middle_the_daemon_died_is_not_done_again(place, name):
    (place / "data").mkdir()
    url, with_key = f"/v1/volumes/{name}/snapshots", key()
    with controlling.serving(place) as api:
        body = {"volume_id": name, "source": f"{place}/data", "mount_point": f"{place}/mnt"}
        api.ok("POST", "/v1/volumes", body)
        api.ok("POST", f"/v1/volumes/{name}/mount")
        go_on = stopped_owner(api, name)
        try:
            thread, _ = in_background(lambda: gone(lambda: api.ask("POST", url, {}, with_key)))
            wait_until(lambda: has_begun(with_key))
            api.process.kill()
            api.process.wait()
            thread.join()
        finally:
            go_on()
    with controlling.serving(place) as api:
        for _ in range(2):
            again = api.ask("POST", url, {}, with_key)
            assert (again.status, again.code) == (409, "outcome_unknown") and "retry-after" not in again.headers
        assert len(api.ok("GET", url)["items"]) <= 1


def test_what_a_process_that_ended_had_begun_is_told_and_not_done_again(place):
    path = place / "state/answers.db"
    first = KeptAnswers(path)
    assert first.begin("uid:0", "k", "f") is None
    with pytest.raises(Refusal) as under_way:
        first.begin("uid:0", "k", "f")
    assert under_way.value.problem.code == "request_in_progress"
    assert first.begin("uid:1", "k", "g") is None  # a key is its principal's
    first.close()
    second = KeptAnswers(path)
    for _ in range(2):
        with pytest.raises(Refusal) as unknown:
            second.begin("uid:0", "k", "f")
        assert unknown.value.problem.code == "outcome_unknown"
    second.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_answers_are_let_go_after_a_day_and_a_newer_format_is_refused(place):
    path = place / "answers.db"
    answers = KeptAnswers(path)
    answers.begin("uid:0", "k", "f")
    answers.finish("uid:0", "k", Answer(204, (("a", "b"),), b"c"))
    assert answers.begin("uid:0", "k", "f") == Answer(204, (("a", "b"),), b"c")
    answers.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE answers SET begun_at = begun_at - ?", (KEPT_S + 1,))
    assert answers.begin("uid:0", "k", "g") is None
    answers.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(Unsupported, match="upgrade volgate"):
        answers.begin("uid:0", "k", "g")
    answers.close()


def test_a_client_that_goes_away_does_not_break_off_what_it_asked_for(api, place, mounted_name):
    for number in range(3000):
        (place / f"mnt/{number}").touch()
    url, with_key = f"/v1/volumes/{mounted_name}/snapshots", key()
    connection = controlling.UnixConnection(api.path)
    connection.request("POST", url, b"{}", {"Content-Type": "application/json", **with_key})
    wait_until(lambda: has_begun(with_key))
    connection.close()
    wait_until(lambda: api.ask("POST", url, {}, with_key).status == 201, 30)
    assert len(api.ok("GET", url)["items"]) == 1
