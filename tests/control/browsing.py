"""A real browser before a real control daemon: over TLS with a token, or through a forwarded unix socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from controlling import Api, serving
from volgate.control.roles import parse_grant
from volgate.control.tokens import TokenFile

WAIT_MS = 20000
DAY_S = 86400.0
WIDE = {"width": 1440, "height": 1000}
PHONE = {"width": 360, "height": 740}
_CHUNK_BYTES = 1 << 16
expect.set_options(timeout=WAIT_MS)


@attrs.frozen
class Site:
    """A control daemon that serves its page. Attributes: url: over TLS. environment: what it was started with."""

    api: Api
    url: str
    tokens: TokenFile
    environment: dict[str, str]

    def token(self, name: str, *grants: str) -> str:
        with contextlib.suppress(Exception):
            self.tokens.revoke(name)
        return self.tokens.create(name, tuple(parse_grant(grant) for grant in grants), DAY_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def site_at(place: Path) -> Iterator[Site]:
    """Run a control daemon with a certificate that it made itself."""
    place.mkdir(exist_ok=True)
    port = free_port()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-keyout", f"{place}/tls.key", "-out", f"{place}/tls.pem"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (place / "tls.key").chmod(0o600)
    environment = {
        "VOLGATE_CONTROL__LISTEN": f"127.0.0.1:{port}",
        "VOLGATE_CONTROL__TLS_CERTIFICATE": f"{place}/tls.pem",
        "VOLGATE_CONTROL__TLS_KEY": f"{place}/tls.key",
        "VOLGATE_CONTROL__TOKENS": f"{place}/tokens.json",
    }
    with serving(place, environment) as api:
        yield Site(api, f"https://127.0.0.1:{port}/", TokenFile(place / "tokens.json"), environment)


@contextlib.contextmanager
def forwarded(path: Path) -> Iterator[int]:
    """Give the port of this host at which a unix socket answers, as by ``ssh -L``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, path), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, path: Path) -> None:
    with contextlib.suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(path))
            except OSError:
                near.close()
                far.close()
                continue
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(_CHUNK_BYTES):
            other.sendall(data)
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Run a headless Chromium: Debian's, since Playwright's own is no package of a registry."""
    program = shutil.which("chromium")
    assert program, "no chromium: run tools/setup testing"
    with sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        found = playwright.chromium.launch(executable_path=program, args=[*flags, "--disable-dev-shm-usage"])
        try:
            yield found
        finally:
            found.close()


@contextlib.contextmanager
def tab(browser_: Browser, *, viewport: dict[str, int] = WIDE, dark: bool = False) -> Iterator[Page]:
    """Give a tab of a browser without a past; an exception in a script or a breach of the page's policy fails."""
    context: BrowserContext = browser_.new_context(
        viewport=viewport, color_scheme="dark" if dark else "light", ignore_https_errors=True
    )
    context.set_default_timeout(WAIT_MS)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if _is_fault(said.type, said.text) else None)
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    try:
        yield page
    finally:
        context.close()
    assert not faults, faults


def _is_fault(kind: str, text: str) -> bool:
    return kind == "error" and "Failed to load resource" not in text


def sign_in(page: Page, site: Site, token: str, fragment: str = "") -> None:
    page.goto(site.url + fragment)
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#content")).to_be_visible()
