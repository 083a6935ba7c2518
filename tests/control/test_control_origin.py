"""What other web sites in somebody's browser cannot do: pure decisions, and at a real socket."""

import pytest

from volgate.control import origin
from volgate.control.problems import Refusal


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"host": "x"}, {"host": "localhost"}, {"host": "localhost:8443"}, {"host": "127.0.0.1:8443"},
        {"host": "[::1]:8443"}, {"host": "[::1]"}, {"host": "10.0.0.7"}, {"host": "volgate.localhost:80"},
        {"host": "%2Frun%2Fvolgate%2Fcontrol.sock"},
        {"host": "localhost:8443", "origin": "http://localhost:8443", "sec-fetch-site": "same-origin"},
        {"host": "localhost:8443", "origin": "HTTP://LocalHost:8443"}, {"host": "localhost", "sec-fetch-site": "none"},
    ],
)  # fmt: skip
def test_programs_and_the_page_itself_may_ask(headers):
    for method in ("GET", "POST", "PATCH", "DELETE"):
        origin.check(method, headers, is_local=True)
        origin.check(method, headers, is_local=False)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8443", "1.2.3.4.evil.example", "localhost.evil.example"]
)
def test_a_name_that_others_point_here_is_refused_at_the_local_socket(host):
    for method in ("GET", "POST"):
        with pytest.raises(Refusal, match="use localhost"):
            origin.check(method, {"host": host}, is_local=True)
        origin.check(method, {"host": host}, is_local=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "null"},
        {"origin": "https://evil.example"}, {"origin": "http://localhost:3000"}, {"origin": "http://localhost"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_local", [True, False])
def test_another_sites_change_is_refused_and_its_look_is_left_to_the_browser(headers, is_local):
    given = {"host": "localhost:8443", **headers}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(Refusal, match="another web site"):
            origin.check(method, given, is_local=is_local)
    origin.check("GET", given, is_local=is_local)


def test_a_real_socket_refuses_another_site_before_anything_is_done(api, made):
    foreign = {"Host": "localhost:8443", "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    key = {"Idempotency-Key": f"origin-{made}"}
    assert api.ask("POST", f"/v1/volumes/{made}/mount", headers={**foreign, **key}).code == "forbidden"
    assert api.ok("GET", f"/v1/volumes/{made}")["state"] == "not mounted"
    assert api.ask("POST", f"/v1/volumes/{made}/unmount", headers=key).code == "not_mounted"  # the key was left free
    assert api.ask("GET", "/v1/volumes", headers={"Host": "evil.example:8443"}).code == "forbidden"
