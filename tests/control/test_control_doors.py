"""Who is let in, and what no client can do to the daemon: users, tokens, slow and large requests, sockets."""

import base64
import contextlib
import hmac
import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h2.connection
import h2.settings
import jwt
import pytest
import trio

from controlling import Answer, UnixConnection, converse, serving, start
from mounting import in_child, signal_until_it_ends, spawn, volgate, wait_until
from volgate.control.http_server import HttpServer
from volgate.control.routes.events import FOLLOWERS
from volgate.control.tokens import TokenFile

USER, READER, STRANGER = 12001, 12002, 12003
SECRET = "0123456789abcdef" * 4
SLOW_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def keys(module_place):
    """Return a folder with a certificate, its key, and a key pair for signed tokens."""
    place = module_place / "keys"
    place.mkdir(mode=0o700)
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", place / "tls.key", "-out", place / "tls.pem",
    )  # fmt: skip
    openssl("genpkey", "-algorithm", "ed25519", "-out", place / "jwt.key")
    openssl("pkey", "-in", place / "jwt.key", "-pubout", "-out", place / "jwt.pem")
    (place / "hmac").write_text(SECRET)
    for file in place.iterdir():
        file.chmod(0o600)
    return place


def over_tls(keys, port):
    tls = ssl.create_default_context(cafile=keys / "tls.pem")
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=tls)


@pytest.fixture(scope="module")
def door(module_place, keys):
    """Return a daemon with all its doors open: (Api, what asks over TCP)."""
    port = free_port()
    environment = {
        "VOLGATE_CONTROL__ROLES": f"{USER}=owner:projects,reader:home {READER}=reader:*",
        "VOLGATE_CONTROL__LISTEN": f"127.0.0.1:{port}",
        "VOLGATE_CONTROL__TLS_CERTIFICATE": f"{keys}/tls.pem",
        "VOLGATE_CONTROL__TLS_KEY": f"{keys}/tls.key",
        "VOLGATE_CONTROL__TOKENS": f"{keys}/tokens.json",
        "VOLGATE_CONTROL__JWT_KEY": f"{keys}/jwt.pem",
        "VOLGATE_CONTROL__JWT_AUDIENCE": "volgate",
    }

    def ask(method, target, token=None, body=None):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with contextlib.closing(over_tls(keys, port)) as connection:
            return converse(connection, method, target, body, headers)

    folder = module_place / "door"
    folder.mkdir()
    with serving(folder, environment) as api:
        yield api, ask


# -- users -----------------------------------------------------------------------------------------------------------


def ask_as(api, uid, method, target, body=None):
    """Ask as another user, who may enter the socket's folder as its group."""

    def ask():
        with contextlib.closing(UnixConnection(api.path)) as connection:
            answer = converse(connection, method, target, body)
            return answer.status, dict(answer.headers), answer.content

    return Answer(*in_child(ask, uid=uid, gids=[0]))


def test_a_user_without_a_role_is_refused_everything(door):
    api, _ = door
    for target in ("/v1/health", "/v1/volumes", "/v1/openapi.json", "/metrics", "/v1/nothing"):
        assert ask_as(api, STRANGER, "GET", target).code == "forbidden"
    assert ask_as(api, STRANGER, "POST", "/v1/volumes", {"volume_id": "x", "source": "/srv"}).code == "forbidden"


def test_roles_hold_by_volume(door):
    api, _ = door
    not_there = {"not_found"}
    for uid, method, target, codes in (
        (USER, "GET", "/v1/volumes/projects", not_there),
        (USER, "POST", "/v1/volumes/projects/mount", not_there),
        (USER, "POST", "/v1/volumes/home/mount", {"forbidden"}),
        (USER, "GET", "/v1/volumes/home", not_there),
        (USER, "GET", "/v1/volumes/other", {"forbidden"}),
        (USER, "PATCH", "/v1/volumes/projects/quota", {"forbidden"}),
        (USER, "PATCH", "/v1/volumes/projects", {"forbidden"}),
        (USER, "DELETE", "/v1/volumes/projects", {"forbidden"}),
        (USER, "POST", "/v1/volumes", {"forbidden"}),
        (USER, "POST", "/v1/adoptions", {"forbidden"}),
        (USER, "GET", "/metrics", {"forbidden"}),
        (READER, "GET", "/v1/volumes/other", not_there),
        (READER, "POST", "/v1/volumes/other/unmount", {"forbidden"}),
        (READER, "DELETE", "/v1/volumes/other/snapshots/one", {"forbidden"}),
    ):
        assert ask_as(api, uid, method, target, {} if method != "GET" else None).code in codes, (uid, method, target)
    assert ask_as(api, READER, "GET", "/metrics").status == 200
    assert api.ask("GET", "/v1/volumes/other").code == "not_found"


def test_a_list_has_only_what_its_reader_may_see(door, place, name):
    api, _ = door
    api.ok("POST", "/v1/volumes", {"volume_id": name, "source": f"{place}/data"})
    assert name in [volume["volume_id"] for volume in ask_as(api, READER, "GET", "/v1/volumes").json["items"]]
    assert ask_as(api, USER, "GET", "/v1/volumes").json == {"items": [], "next_cursor": None}


def test_only_the_group_may_connect(door):
    api, _ = door
    assert stat.S_IMODE(api.path.stat().st_mode) == 0o660

    def connect():
        try:
            UnixConnection(api.path).connect()
        except PermissionError:
            return "refused"

    assert in_child(connect, uid=READER, gids=[READER]) == "refused"


def test_a_group_is_chosen_by_the_configuration(place):
    with serving(place, {"VOLGATE_CONTROL__GROUP": "12077"}) as api:
        assert (api.path.stat().st_gid, stat.S_IMODE(api.path.stat().st_mode)) == (12077, 0o660)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ROLES": "nobody-here=reader:*"}, "there is no user 'nobody-here'"),
        ({"ROLES": "1000=king:*"}, "'king:*' is no grant"),
        ({"GROUP": "no-group-here"}, "there is no group 'no-group-here'"),
        ({"LISTEN": "127.0.0.1:1"}, "not served without TLS"),
        ({"LISTEN": "x"}, "no address"),
        ({"JWT_KEY": "/dev/null"}, "jwt_audience is needed"),
        ({"JWT_KEY": "/dev/null", "JWT_AUDIENCE": "a"}, "no public key in PEM"),
        ({"JWT_KEY": "{keys}/jwt.pem", "JWT_AUDIENCE": "a", "JWT_ALGORITHM": "HS256"}, "no secret of 32 bytes"),
        ({"JWT_KEY": "{keys}/jwt.pem", "JWT_AUDIENCE": "a", "JWT_ALGORITHM": "none"}, "is none of"),
        ({"LISTEN": "127.0.0.1:{port}", "TLS_CERTIFICATE": "{keys}/tls.pem", "TLS_KEY": "{keys}/open"}, "chmod 600"),
        (
            {"LISTEN": "127.0.0.1:{port}", "TLS_CERTIFICATE": "{keys}/hmac", "TLS_KEY": "{keys}/tls.key"},
            "no certificate",
        ),
        ({"SOKET": "x"}, "did you mean 'socket'?"),
    ],
)
def test_a_wrong_configuration_ends_the_start_with_one_line(place, keys, variables, says):
    if not (keys / "open").exists():
        (keys / "open").write_bytes((keys / "tls.key").read_bytes())
        (keys / "open").chmod(0o644)
    environment = {
        f"VOLGATE_CONTROL__{key}": value.format(keys=keys, port=free_port()) for key, value in variables.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "volgate", "control", "serve"],
        env={**os.environ, "VOLGATE_CONTROL__SOCKET": f"{place}/c.sock", **environment},
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == os.EX_CONFIG and says in done.stderr, done
    assert done.stderr.startswith("volgate: ") and len(done.stderr.splitlines()) == 1
    assert not (place / "c.sock").exists()


# -- tokens ----------------------------------------------------------------------------------------------------------


def token_verb(keys, *words):
    return subprocess.run(
        [sys.executable, "-m", "volgate", "control", "token", *words],
        env={**os.environ, "VOLGATE_CONTROL__TOKENS": f"{keys}/tokens.json"},
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_token_lets_in_until_it_is_revoked(door, keys):
    _, ask = door
    made = token_verb(keys, "create", "ann", "--grant", "owner:projects")
    assert made.returncode == 0, made
    assert made.stderr == "volgate: no volume is known here by the name of projects; granted all the same\n"
    token = made.stdout.strip()
    assert ask("GET", "/v1/volumes", token).status == 200
    assert ask("GET", "/v1/volumes/projects", token).code == "not_found"
    assert ask("PATCH", "/v1/volumes/projects/quota", token, {}).code == "forbidden"
    content = (keys / "tokens.json").read_text()
    assert token not in content and stat.S_IMODE((keys / "tokens.json").stat().st_mode) == 0o600
    (listed,) = json.loads(token_verb(keys, "list", "--json").stdout)
    assert (listed["name"], listed["grants"]) == ("ann", ["owner:projects"])
    assert token_verb(keys, "create", "ann", "--grant", "reader:*").returncode == os.EX_CANTCREAT
    assert token_verb(keys, "create", "bob", "--grant", "reader").returncode == os.EX_USAGE
    assert token_verb(keys, "revoke", "ann").returncode == 0
    assert ask("GET", "/v1/volumes", token).code == "unauthenticated"
    assert token_verb(keys, "revoke", "ann").returncode == os.EX_UNAVAILABLE
    assert not list(keys.glob(".*"))


def test_without_a_good_token_nobody_gets_in_over_tcp(door, keys):
    _, ask = door
    expired = TokenFile(keys / "tokens.json").create("old", (), -1.0)
    nothing = TokenFile(keys / "tokens.json").create("nothing", (), 60.0)
    for token in (None, "", "x", "vgt_x", expired, "a" * 20_000, "\xff"):
        refused = ask("GET", "/v1/volumes", token)
        assert (refused.status, refused.code, refused.headers["www-authenticate"]) == (401, "unauthenticated", "Bearer")
    assert ask("GET", "/v1/health").json == {"status": "ok"}
    assert ask("GET", "/v1/volumes", nothing).json["items"] == []
    assert ask("GET", "/v1/volumes/projects", nothing).code == "forbidden"
    assert ask("POST", "/v1/volumes", nothing, {"volume_id": "x", "source": "/srv"}).code == "forbidden"


def test_a_file_of_tokens_that_others_may_read_is_not_believed(keys, place):
    tokens = TokenFile(place / "tokens.json")
    text = tokens.create("ann", (), 60.0)
    assert tokens.find(text).name == "ann"
    (place / "tokens.json").chmod(0o640)
    os.utime(place / "tokens.json")
    done = subprocess.run(
        [sys.executable, "-m", "volgate", "control", "token", "list"],
        env={**os.environ, "VOLGATE_CONTROL__TOKENS": f"{place}/tokens.json"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == os.EX_CONFIG and "may be read by others" in done.stderr


def test_tokens_made_at_once_are_all_there(place):
    children = [spawn(TokenFile(place / "tokens.json").create, f"n{n}", (), 60.0) for n in range(8)]
    texts = [child.result() for child in children]
    tokens = TokenFile(place / "tokens.json")
    assert sorted(tokens.find(text).name for text in texts) == [f"n{n}" for n in range(8)]


def signed(keys, *, key=None, algorithm="EdDSA", headers=None, without=(), **claims):
    known = {"sub": "ann", "aud": "volgate", "exp": int(time.time()) + 600, "roles": ["reader:*"], **claims}
    for name in without:
        del known[name]
    return jwt.encode(known, key or (keys / "jwt.key").read_bytes(), algorithm, headers=headers)


def test_a_signed_token_lets_in_with_the_roles_it_names(door, keys):
    _, ask = door
    assert ask("GET", "/metrics", signed(keys)).status == 200
    owner = signed(keys, roles=["owner:projects"])
    assert ask("POST", "/v1/volumes/projects/mount", owner).code == "not_found"
    assert ask("POST", "/v1/volumes/home/mount", owner).code == "forbidden"
    assert ask("GET", "/v1/volumes", signed(keys, aud=["others", "volgate"])).status == 200
    for subject in ("x", "a" * 255, "Ann Lee <ann@example.org>", "ünï"):
        assert ask("GET", "/v1/volumes", signed(keys, sub=subject)).status == 200


def test_a_signed_token_that_is_not_right_in_every_point_is_refused(door, keys):
    _, ask = door
    now = int(time.time())
    public = (keys / "jwt.pem").read_bytes()
    openssl("genpkey", "-algorithm", "ed25519", "-out", keys / "other.key")
    good = signed(keys)
    head, payload, signature = good.split(".")

    def with_head(**head):
        return base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()

    hmac_of_public = base64.urlsafe_b64encode(
        hmac.digest(public, f"{with_head(alg='HS256', typ='JWT')}.{payload}".encode(), "sha256")
    )
    for what, token in {
        "expired": signed(keys, exp=now - 1),
        "too long": signed(keys, exp=now + 3600),
        "an end beyond all numbers": signed(keys, exp=10**400),
        "no end": signed(keys, without=["exp"]),
        "an end that is no number": signed(keys, exp="soon"),
        "another audience": signed(keys, aud="others"),
        "no audience": signed(keys, without=["aud"]),
        "no subject": signed(keys, without=["sub"]),
        "a subject without a name": signed(keys, sub=""),
        "a subject of several lines": signed(keys, sub="ann\nbob"),
        "a subject with a NUL": signed(keys, sub="ann\0"),
        "a subject that turns text round": signed(keys, sub="ann\u202e"),
        "a subject that is no text": signed(keys, sub="ann\ud800"),
        "a long subject": signed(keys, sub="a" * 256),
        "not yet": signed(keys, nbf=now + 300),
        "another's key": signed(keys, key=(keys / "other.key").read_bytes()),
        "no signature": f"{head}.{payload}.",
        "alg none": f"{with_head(alg='none', typ='JWT')}.{payload}.",
        "alg NoNe": f"{with_head(alg='NoNe', typ='JWT')}.{payload}.",
        "the public key as a secret": f"{with_head(alg='HS256', typ='JWT')}.{payload}."
        + hmac_of_public.rstrip(b"=").decode(),
        "HS256": signed(keys, key=SECRET, algorithm="HS256"),
        "changed": f"{head}.{payload[:-2]}AA.{signature}",
        "no roles": signed(keys, without=["roles"]),
        "roles that are none": signed(keys, roles=["root"]),
        "roles as text": signed(keys, roles="admin:*"),
        "critical header": signed(keys, headers={"crit": ["x"], "x": 1}),
        "too large": good + "A" * 9000,
        "dots": "...",
    }.items():
        answer = ask("GET", "/v1/volumes", token)
        assert (answer.status, answer.code) == (401, "unauthenticated"), (what, answer)


def test_a_secret_signs_tokens_where_that_was_chosen(place, keys):
    port = free_port()
    environment = {
        "VOLGATE_CONTROL__LISTEN": f"127.0.0.1:{port}", "VOLGATE_CONTROL__TLS_CERTIFICATE": f"{keys}/tls.pem",
        "VOLGATE_CONTROL__TLS_KEY": f"{keys}/tls.key", "VOLGATE_CONTROL__TOKENS": f"{place}/tokens.json",
        "VOLGATE_CONTROL__JWT_KEY": f"{keys}/hmac", "VOLGATE_CONTROL__JWT_ALGORITHM": "HS256",
        "VOLGATE_CONTROL__JWT_AUDIENCE": "volgate", "VOLGATE_CONTROL__JWT_ISSUER": "us",
    }  # fmt: skip
    with serving(place, environment):
        for token, status in (
            (signed(keys, key=SECRET, algorithm="HS256", iss="us"), 200),
            (signed(keys, key=SECRET, algorithm="HS256", iss="them"), 401),
            (signed(keys, key=SECRET, algorithm="HS512", iss="us"), 401),
            (signed(keys, iss="us"), 401),
        ):
            with contextlib.closing(over_tls(keys, port)) as connection:
                answer = converse(connection, "GET", "/v1/volumes", None, {"Authorization": f"Bearer {token}"})
            assert answer.status == status, answer


def port_of(api):
    return int(next(line for line in api.log().splitlines() if "serves" in line).rpartition(":")[2].strip("'"))


def test_who_follows_over_tls_and_leaves_is_not_answered_any_more(door, keys):
    api, ask = door
    token = signed(keys)
    for _ in range(FOLLOWERS):
        with contextlib.closing(over_tls(keys, port_of(api))) as connection:
            connection.request("GET", "/v1/events/stream", headers={"Authorization": f"Bearer {token}"})
            with connection.getresponse() as answer:
                assert answer.status == 200
    wait_until(lambda: b"volgate_control_inflight 1.0\n" in ask("GET", "/metrics", token).content, SLOW_S)


def test_nothing_is_served_over_tcp_in_the_clear(door, keys):
    api, ask = door
    assert ask("GET", "/v1/health").status == 200
    port = port_of(api)
    with socket.create_connection(("127.0.0.1", port), timeout=SLOW_S) as client:
        client.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"200" not in client.recv(4096)


# -- what no client can do -------------------------------------------------------------------------------------------


def connect(api):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(SLOW_S)
    client.connect(str(api.path))
    return client


def read_to_end(client):
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            content += part
    return content


def test_a_body_of_ten_megabytes_is_refused_and_the_daemon_goes_on(api):
    for _ in range(5):
        refused = api.ask("POST", "/v1/volumes", b"x" * 10_000_000)
        assert (refused.status, refused.code) == (413, "body_too_large")
    with connect(api) as client:
        client.sendall(
            b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for _ in range(100):
            client.sendall(b"8000\r\n" + b"y" * 0x8000 + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert b"body_too_large" in read_to_end(client)
    assert api.ask("GET", "/v1/health").status == 200


def drip(client):
    """Send a head byte by byte until the connection ends; return whether it did."""
    began = time.monotonic()
    client.settimeout(0.5)
    while time.monotonic() - began < SLOW_S:
        try:
            client.sendall(b"G")
            if not client.recv(1000):
                return True
        except TimeoutError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            return True
    return False


def test_heads_and_bodies_that_do_not_come_are_given_up_and_hold_nobody_up(api):
    head = b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(api)) for _ in range(60)]
        for number, client in enumerate(slow):
            client.sendall(head if number % 2 else head[: number % 40 + 1])
        for _ in range(20):
            assert api.ask("GET", "/v1/health").status == 200
        dripping = stack.enter_context(connect(api))
        dripped = []
        thread = threading.Thread(target=lambda: dripped.append(drip(dripping)))
        thread.start()
        for _ in range(120):  # more than are served at once
            stack.enter_context(connect(api))
        assert api.ask("GET", "/v1/health").status == 200
        ended = [read_to_end(client) for client in slow]
        assert all(b" 408 " in content and b"request_timeout" in content for content in ended[1::2])
        assert all(b" 200 " not in content for content in ended[::2])
        thread.join()
        assert dripped == [True]


def test_more_than_can_be_done_at_once_is_refused_and_the_daemon_still_says_that_it_lives(api, mounted_name):
    pid = api.ok("GET", f"/v1/volumes/{mounted_name}/status")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(90) as pool:
            asked = [pool.submit(api.ask, "GET", f"/v1/volumes/{mounted_name}/snapshots") for _ in range(90)]
            wait_until(lambda: any(one.done() for one in asked))
            assert api.ask("GET", "/v1/health").status == 200
            os.kill(pid, signal.SIGCONT)
            answers = [one.result() for one in asked]
    finally:
        os.kill(pid, signal.SIGCONT)
    refused = [answer for answer in answers if answer.status != 200]
    assert refused and {(a.status, a.code, a.headers["retry-after"]) for a in refused} == {(503, "overloaded", "1")}
    assert len(answers) - len(refused) >= 64


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 1000, b"GET\r\n\r\n", b"GET /v1/health HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)  # fmt: skip
def test_what_is_no_http_ends_its_own_connection(api, sent):
    with connect(api) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_to_end(client)
    assert api.ask("GET", "/v1/health").status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v1/health HTTP/1.1\r\n\r\n", 400), (b"HEAD /v1/health HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)  # fmt: skip
def test_what_the_parser_refuses_is_told_as_a_problem(api, sent, status):
    with connect(api) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(sent)
        head, _, content = read_to_end(client).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()) and b"content-type: application/problem+json\r\n" in head
    problem = json.loads(content)
    assert (problem["status"], problem["code"]) == (status, "malformed_request")


def many_questions_of_http2():
    """Return what a client of HTTP/2 sends who asks 80 times and takes no byte of an answer."""
    speaker = h2.connection.H2Connection()
    speaker.initiate_connection()
    speaker.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    for number in range(1, 160, 2):
        known = [(":method", "GET"), (":path", "/v1/volumes"), (":scheme", "https"), (":authority", "x")]
        speaker.send_headers(number, known, end_stream=True)
    return speaker.data_to_send()


def test_refused_requests_whose_rest_does_not_come_hold_nobody_up(door, keys):
    api, _ = door
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    with contextlib.ExitStack() as stack:
        for _ in range(120):  # more than are connected at once
            connection = stack.enter_context(contextlib.closing(over_tls(keys, port_of(api))))
            connection.connect()
            connection.sock.sendall(head)
            assert connection.sock.recv(65536).startswith(b"HTTP/1.1 401 ")
        assert api.ask("GET", "/v1/volumes").status == 200
        assert b"volgate_control_inflight 1.0\n" in api.ask("GET", "/metrics").content


@pytest.mark.parametrize("secured", [False, True])
def test_http2_ends_its_own_connection(door, keys, secured):
    api, _ = door
    with contextlib.ExitStack() as stack:
        if secured:
            connection = stack.enter_context(contextlib.closing(over_tls(keys, port_of(api))))
            connection.connect()
            client = connection.sock
        else:
            client = stack.enter_context(connect(api))
        client.sendall(many_questions_of_http2())
        assert read_to_end(client) == b""
    assert api.ask("GET", "/v1/volumes").status == 200


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.0"])
def test_another_version_of_http_ends_its_own_connection(api, version):
    for method in (b"GET", b"HEAD"):
        with connect(api) as client:
            client.sendall(method + b" /v1/health HTTP/" + version + b"\r\nHost: x\r\n\r\n")
            assert read_to_end(client) == b""


def test_a_client_that_would_change_to_http2_is_answered_as_it_asked(api):
    head = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n"
    with connect(api) as client:
        client.sendall(
            head + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        )
        client.sendall(head + b"Connection: close\r\n\r\n")
        answers = read_to_end(client)
    assert answers.count(b"HTTP/1.1 200 ") == answers.count(b'{"status":"ok"}') == 2 and b" 101 " not in answers


TRICKS = (
    "..",
    "%2e%2e",
    "..%2f..%2fetc",
    "%2Fetc%2Fpasswd",
    "a%00b",
    "%FF",
    "a%0d%0ab",
    "control%2esock%2f",
    "-x",
    "A",
)


@pytest.mark.parametrize("trick", TRICKS)
def test_no_path_leads_elsewhere(api, mounted_name, trick):
    for method, target in (
        ("GET", "/v1/volumes/{}"), ("GET", "/v1/volumes/{}/status"), ("POST", "/v1/volumes/{}/mount"),
        ("POST", "/v1/volumes/{}/unmount"), ("DELETE", "/v1/volumes/{}"), ("GET", "/v1/volumes/{}/quota"),
        ("GET", "/v1/volumes/{}/snapshots"), ("PATCH", "/v1/volumes/{}/quota"),
    ):  # fmt: skip
        answer = api.ask(method, target.format(trick), {"quota_bytes": 1} if method == "PATCH" else None)
        assert answer.code in ("invalid_request", "unknown_route", "not_found", "method_not_allowed"), (target, answer)
    for method, target in (("GET", "snapshots/{}"), ("DELETE", "snapshots/{}"), ("GET", "snapshots/{}/diff")):
        url = f"/v1/volumes/{mounted_name}/{target.format(trick)}"
        assert api.ask(method, url).code in ("invalid_request", "unknown_route", "not_found", "method_not_allowed"), url


# -- sockets ---------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_in_the_middle_of_an_answer_breaks_only_that(tmp_path):
    failures = []

    async def app(scope, receive, send):
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(1000):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except Exception as error:
            failures.append(error)

    async def leave():
        bound = trio.socket.socket(trio.socket.AF_UNIX)
        await bound.bind(str(tmp_path / "s"))
        bound.listen()
        server = HttpServer(app)
        async with trio.SocketListener(bound) as listener, trio.open_nursery() as nursery:
            await nursery.start(server.serve, [(listener, None)])
            for _ in range(20):
                async with await trio.open_unix_socket(str(tmp_path / "s")) as client:
                    await client.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
                    await client.receive_some(200)
            server.stop()

    trio.run(leave)
    assert failures == []


def test_a_stale_socket_is_replaced_and_one_that_answers_is_not(place):
    with serving(place) as api:
        done = subprocess.run(
            [sys.executable, "-m", "volgate", "control", "serve"],
            env={**os.environ, "VOLGATE_CONTROL__SOCKET": str(api.path)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == os.EX_TEMPFAIL and "another control daemon answers" in done.stderr
        assert api.ask("GET", "/v1/health").status == 200
        api.process.kill()
        api.process.wait()
        assert api.path.exists()
    with serving(place) as api:
        assert api.ask("GET", "/v1/health").status == 200


def test_what_is_no_socket_is_not_removed(place):
    (place / "control.sock").write_text("somebody's")
    with pytest.raises(AssertionError, match="cannot be used: Address already in use"):
        start(place / "control.sock")
    assert (place / "control.sock").read_text() == "somebody's"


def test_a_socket_of_the_service_manager_is_taken_over(place):
    path = place / "given.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        script = f'exec 3<&{listener.fileno()}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", sys.executable, "-m", "volgate", "control", "serve"],
            env={**os.environ, "VOLGATE_CONTROL__SOCKET": f"{place}/other.sock"}, pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
        )  # fmt: skip
    try:
        with contextlib.closing(UnixConnection(path)) as connection:  # waits in the backlog until it is accepted
            assert converse(connection, "GET", "/v1/health").status == 200
        assert not (place / "other.sock").exists()
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert path.exists()


def test_a_stop_lets_answers_under_way_end(place, name):
    (place / "data").mkdir()
    with serving(place) as api:
        body = {"volume_id": name, "source": f"{place}/data", "mount_point": f"{place}/mnt"}
        api.ok("POST", "/v1/volumes", body)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(api.ask("POST", f"/v1/volumes/{name}/mount")))
        thread.start()
        while "mount" not in " ".join(children_of(api.process.pid)):
            time.sleep(0.01)
        api.process.terminate()
        thread.join()
        assert answers[0].status == 200 and answers[0].json["state"] == "ready"
        assert api.process.wait(60) == 0
    assert volgate("umount", name).returncode == 0


def test_signals_that_go_on_cut_off_nothing_of_a_stop(place):
    with serving(place) as api:
        signal_until_it_ends(api.process, signal.SIGTERM)
        assert api.process.returncode == 0, api.log()
        assert "the control daemon ended" in api.log() and not api.path.exists()


def children_of(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "))
    return found
