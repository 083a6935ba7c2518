"""The page in a real browser, before a real control daemon and real mounts."""

import contextlib
import itertools
import os
import re
import signal
import time

import pytest
from playwright.sync_api import expect

import browsing
import s3_server
import toxiproxy
from browsing import PHONE, WIDE, sign_in, tab
from controlling import forget, new_name, start
from volgate.core.sizes import format_size, parse_count, parse_size

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
MIB = 1 << 20
FORBIDDEN = 403
UNSEEN = 0.001
"""A layout shift that nobody sees; 0.1 is called good."""
numbers = itertools.count()


@pytest.fixture(scope="module")
def browser():
    with browsing.browser() as found:
        yield found


@pytest.fixture(scope="module")
def site(module_place):
    with browsing.site_at(module_place / "site") as site:
        yield site


@pytest.fixture(scope="module")
def volume(site, module_place):
    """Return the name of a mounted volume that has something in it, and where it is mounted."""
    name = new_name()
    (module_place / "data").mkdir()
    mnt = module_place / "mnt"
    body = {"volume_id": name, "source": f"{module_place}/data", "mount_point": str(mnt)}
    try:
        site.api.ok("POST", "/v1/volumes", {**body, "quota_bytes": 64 * MIB, "quota_inodes": 1000})
        site.api.ok("POST", f"/v1/volumes/{name}/mount")
        (mnt / "large").write_bytes(os.urandom(6 * MIB))
        yield name, mnt
    finally:
        forget(name)


@pytest.fixture
def signed_in(site):
    """Return what opens the page in a tab for somebody who may everything, or has the given roles."""

    def open_page(page, *grants, fragment=""):
        sign_in(page, site, site.token(f"person-{next(numbers)}", *(grants or ("admin:*",))), fragment)
        return page

    return open_page


def row_of(page, name):
    return page.locator("#volumes > li").filter(has=page.get_by_role("link", name=name, exact=True))


def open_volume(page, name):
    row_of(page, name).get_by_role("link").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def has_no_horizontal_scroll(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def find_task(site, name, target):
    tasks = site.api.ok("GET", f"/v1/volumes/{name}/tasks?limit=1000")["items"]
    return next((task for task in tasks if task["target_path"] == target), None)


# -- who is let in ---------------------------------------------------------------------------------------------------


def test_a_token_lets_in_and_is_kept_in_the_tab_alone(browser, site, volume):
    with tab(browser) as page:
        page.goto(site.url)
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.get_by_label("Token", exact=True)).to_be_focused()
        page.get_by_label("Token", exact=True).fill("vgt_wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").filter(has_text="the token is refused")).to_be_visible()
        sign_in(page, site, site.token("ann", f"reader:{volume[0]}"))
        expect(page.get_by_text("token:ann")).to_be_visible()
        assert page.context.cookies() == [] and page.evaluate("localStorage.length") == 0
        page.reload()
        expect(row_of(page, volume[0])).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.get_by_text(volume[0])).to_have_count(0)
        page.reload()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_token_that_is_revoked_ends_the_session(browser, site, volume, signed_in):
    with tab(browser) as page:
        token = site.token("bob", "reader:*")
        sign_in(page, site, token)
        expect(row_of(page, volume[0])).to_be_visible()
        site.tokens.revoke("bob")
        expect(page.get_by_role("alert").filter(has_text="the token is refused")).to_be_visible()


def test_a_reader_is_offered_nothing_that_changes_and_sees_only_what_is_his(browser, site, volume, signed_in):
    with tab(browser) as page:
        signed_in(page, f"reader:{volume[0]}")
        open_volume(page, volume[0])
        expect(page.locator("#volume-state")).to_have_text("ready")
        expect(page.locator("#volumes > li")).to_have_count(1)
        expect(page.get_by_role("button").filter(visible=True)).to_have_text(["Sign out"])
    with tab(browser) as page:
        signed_in(page, f"owner:{volume[0]}")
        open_volume(page, volume[0])
        expect(page.get_by_role("button", name="Unmount")).to_be_visible()
        expect(page.get_by_role("button", name="Change limits")).to_be_hidden()


def test_what_the_api_refuses_is_said_in_its_words(browser, site, volume, signed_in):
    name, _ = volume
    with tab(browser) as page:
        signed_in(page)
        open_volume(page, name)
        page.get_by_role("button", name="Change limits").click()
        dialog = page.get_by_role("dialog", name="Change limits")
        dialog.get_by_label("Bytes").fill("much")
        dialog.get_by_role("button", name="Change").click()
        expect(dialog.get_by_role("alert")).to_contain_text("'much' is no size")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Start a copy").click()
        dialog = page.get_by_role("dialog", name="Start a copy")
        dialog.get_by_label("From the volume").fill("nobody")
        dialog.get_by_label("To, in this volume").fill("x")
        dialog.get_by_role("button", name="Start").click()
        expect(dialog.get_by_role("alert")).to_contain_text("nobody")
        expect(dialog.get_by_role("button", name="Start")).to_be_enabled()


def test_behind_a_forwarded_socket_the_kernel_says_who_asks(browser, site, volume):
    with browsing.forwarded(site.api.path) as port, tab(browser) as page:
        page.goto(f"http://localhost:{port}/")
        expect(row_of(page, volume[0])).to_be_visible()
        expect(page.get_by_text("uid:0")).to_be_visible()
        expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
        open_volume(page, volume[0])
        page.get_by_role("button", name="Take a snapshot").click()
        page.get_by_label("Name (empty: the moment)").fill("through-the-tunnel")
        page.get_by_role("button", name="Take", exact=True).click()
        expect(page.get_by_text("through-the-tunnel was", exact=False)).to_be_hidden()
        expect(page.locator("#snapshots")).to_contain_text("through-the-tunnel")


def test_another_site_cannot_use_the_forwarded_socket(browser, site, volume):
    name, mnt = volume
    with browsing.forwarded(site.api.path) as port, tab(browser) as page:
        page.goto(f"http://127.0.0.1:{port}/v1/health")  # another origin, to the browser another site
        answered = []
        page.on("response", lambda response: answered.append(response.status))
        page.evaluate(
            """url => fetch(url, {method: "POST", mode: "no-cors"})""",
            f"http://localhost:{port}/v1/volumes/{name}/unmount",
        )
        assert answered == [FORBIDDEN]
        assert os.path.ismount(mnt)
        assert site.api.ok("GET", f"/v1/volumes/{name}")["state"] == "ready"


# -- what is seen ----------------------------------------------------------------------------------------------------


def test_volumes_are_seen_with_their_use_and_what_is_wrong_in_words(browser, site, volume, signed_in):
    name, _ = volume
    with tab(browser) as page:
        signed_in(page)
        page.get_by_label("Search").fill(name)
        row = row_of(page, name)
        expect(row.locator(".badge")).to_have_text("ready")
        expect(row.get_by_role("meter", name="Bytes")).to_have_attribute("aria-valuetext", re.compile("MiB of 64 MiB"))
        expect(row.get_by_role("meter", name="Inodes")).to_have_attribute("aria-valuetext", re.compile("of 1 000"))
        open_volume(page, name)
        page.get_by_role("button", name="Change limits").click()
        page.get_by_label("Bytes, as").fill("1MiB")
        page.get_by_label("Inodes (").fill("2K")
        page.get_by_role("button", name="Change", exact=True).click()
        problem = re.compile("more than the limit: only growth is refused")
        try:
            expect(page.locator("#problems")).to_contain_text(problem)
            expect(row.locator(".remark")).to_contain_text(problem)
            expect(page.locator("#quota")).to_contain_text("of 2 000")
            quota = site.api.ok("GET", f"/v1/volumes/{name}/quota")
            assert (quota["quota_bytes"], quota["quota_inodes"]) == (MIB, 2000)
        finally:
            limits = {"quota_bytes": 64 * MIB, "quota_inodes": 1000}
            site.api.ok("PATCH", f"/v1/volumes/{name}/quota", limits)
        expect(page.locator("#no-problems")).to_have_text("Nothing.")


def test_a_volume_is_mounted_and_unmounted(browser, site, signed_in, place):
    name = new_name()
    (place / "data").mkdir()
    try:
        body = {"volume_id": name, "source": f"{place}/data", "mount_point": f"{place}/mnt", "quota_bytes": MIB}
        site.api.ok("POST", "/v1/volumes", body)
        with tab(browser) as page:
            signed_in(page, fragment=f"#/volume/{name}")
            expect(page.locator("#volume-state")).to_have_text("not mounted")
            expect(page.locator("#no-tasks")).to_contain_text("mount it first")
            page.get_by_role("button", name="Mount", exact=True).click()
            expect(page.locator("#volume-state")).to_have_text("ready")
            assert os.path.ismount(place / "mnt")
            with open(place / "mnt/open", "w"):
                page.get_by_role("button", name="Unmount…").click()
                dialog = page.get_by_role("dialog", name="Unmount")
                dialog.get_by_role("button", name="Unmount").click()
                expect(dialog.get_by_role("alert")).to_contain_text("open files")
            dialog.get_by_role("button", name="Unmount").click()
            expect(page.locator("#volume-state")).to_have_text("not mounted")
            assert not os.path.ismount(place / "mnt")
    finally:
        forget(name)


def test_a_snapshot_is_taken_and_restored_once_the_plan_was_seen_and_deleted(browser, site, volume, signed_in):
    name, mnt = volume
    (mnt / "letter").write_text("as it was")
    with tab(browser) as page:
        signed_in(page)
        open_volume(page, name)
        page.get_by_role("button", name="Take a snapshot").click()
        page.get_by_label("Name (empty: the moment)").fill("before")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text=f"Snapshot before of {name} was taken.")).to_be_visible()
        (mnt / "letter").write_text("changed since")
        page.get_by_role("button", name="Restore before").click()
        dialog = page.get_by_role("dialog", name="Restore")
        go = dialog.get_by_role("button", name="Restore")
        expect(go).to_be_disabled()
        dialog.get_by_label("File or directory").fill("letter")
        dialog.get_by_role("button", name="Show the plan").click()
        expect(dialog).to_contain_text("1 replaced")
        expect(dialog.get_by_role("list", name="What differs")).to_contain_text("changed: letter")
        assert (mnt / "letter").read_text() == "changed since"
        dialog.get_by_label("File or directory").fill("lette")
        expect(go).to_be_disabled()
        dialog.get_by_label("File or directory").fill("letter")
        dialog.get_by_role("button", name="Show the plan").click()
        expect(go).to_be_enabled()
        go.click()
        expect(dialog).to_be_hidden()
        assert (mnt / "letter").read_text() == "as it was"
        page.get_by_role("button", name="Delete before").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_role("button", name="Restore before")).to_have_count(0)


def test_a_copy_is_started_and_watched_to_its_end_and_another_cancelled(browser, site, volume, signed_in):
    name, mnt = volume
    with tab(browser) as page:
        signed_in(page)
        open_volume(page, name)

        def start_copy(target, speed):
            page.get_by_role("button", name="Start a copy").click()
            dialog = page.get_by_role("dialog", name="Start a copy")
            dialog.get_by_label("File or directory").fill("large")
            dialog.get_by_label("To, in this volume").fill(target)
            dialog.get_by_label("At most").fill(speed)
            dialog.get_by_role("button", name="Start", exact=True).click()
            return page.locator("#tasks > li").filter(has_text=target)

        task = start_copy("copied", "2MiB")
        bar = task.get_by_role("progressbar")
        expect(bar).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]\d?$"))
        expect(bar).to_have_attribute("aria-valuetext", re.compile(r"MiB of 6 MiB.*MiB/s.* left"))
        task.get_by_role("button", name="Pause").click()
        expect(task.locator(".badge")).to_have_text("paused")
        task.get_by_role("button", name="Resume").click()
        expect(task.locator(".badge")).to_have_text("done")
        expect(bar).to_have_attribute("aria-valuenow", "100")
        expect(task.get_by_role("button")).to_have_count(0)
        assert (mnt / "copied").read_bytes() == (mnt / "large").read_bytes()
        task = start_copy("never", "1MiB")
        task.get_by_role("button", name="Cancel").click()
        expect(task.locator(".badge")).to_have_text("cancelled")
        assert not (mnt / "never").exists() and find_task(site, name, "never")["state"] == "cancelled"
        expect(page.locator("#events")).to_contain_text("task.ended")


def test_of_a_sync_it_is_seen_first_what_it_would_change(browser, site, volume, signed_in):
    name, mnt = volume
    for folder in ("from", "into"):
        (mnt / folder).mkdir()
    (mnt / "from/new").write_text("new")
    (mnt / "into/old").write_text("old")
    with tab(browser) as page:
        signed_in(page)
        open_volume(page, name)
        page.get_by_role("button", name="Start a copy").click()
        dialog = page.get_by_role("dialog", name="Start a copy")
        expect(dialog.get_by_role("button", name="Show what would change")).to_be_hidden()
        dialog.get_by_label("What", exact=True).select_option("sync")
        dialog.get_by_label("File or directory").fill("from")
        dialog.get_by_label("To, in this volume").fill("into")
        dialog.get_by_label("Remove what").check()
        dialog.get_by_role("button", name="Show what would change").click()
        expect(dialog.get_by_role("list", name="What would change")).to_contain_text("added: new")
        expect(dialog.get_by_role("list", name="What would change")).to_contain_text("removed: old")
        assert os.listdir(mnt / "into") == ["old"]
        dialog.get_by_role("button", name="Start", exact=True).click()
        expect(page.locator("#tasks > li").filter(has_text="/into").locator(".badge")).to_have_text("done")
        assert os.listdir(mnt / "into") == ["new"]


def test_events_appear_live_and_none_is_missed_by_who_looked_away(browser, site, volume, signed_in):
    name, _ = volume
    with tab(browser) as page:
        page.add_init_script(
            "Object.defineProperty(document, 'hidden', {get: () => Boolean(window.isAway)});"
            "window.look = away => {window.isAway = away; document.dispatchEvent(new Event('visibilitychange'))};"
        )
        signed_in(page)
        open_volume(page, name)
        expect(page.locator("#events-state")).to_have_text("live")
        site.api.ok("POST", f"/v1/volumes/{name}/snapshots", {"snapshot_id": "live"})
        expect(page.locator("#events > li").filter(has_text="snapshot.taken").filter(has_text="live")).to_have_count(1)
        expect(page.locator("#snapshots")).to_contain_text("live")
        page.evaluate("look(true)")
        page.wait_for_timeout(1500)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        site.api.ok("DELETE", f"/v1/volumes/{name}/snapshots/live")
        page.wait_for_timeout(7000)
        assert asked == []
        page.evaluate("look(false)")
        expect(page.locator("#events > li").filter(has_text="snapshot.deleted")).to_have_count(1)
        expect(page.locator("#snapshots")).not_to_contain_text("live")


def test_hostile_text_stays_text(browser, site, signed_in, place):
    name = new_name()
    inner = place / HOSTILE.replace("/", "")
    inner.mkdir()
    (inner / "data").mkdir()
    try:
        body = {"volume_id": name, "source": f"{inner}/data", "mount_point": f"{inner}/mnt"}
        with tab(browser) as page:
            signed_in(page)
            expect(page.locator("#events-state")).to_have_text("live")
            site.api.ok("POST", "/v1/volumes", body)
            site.api.ok("POST", f"/v1/volumes/{name}/mount")
            snapshot = {"snapshot_id": "s1", "metadata": {"note": HOSTILE, HOSTILE: "1"}}
            site.api.ok("POST", f"/v1/volumes/{name}/snapshots", snapshot)
            (inner / "mnt" / HOSTILE.replace("/", "")).write_text("x")
            page.get_by_label("Search").fill(name)
            expect(page.locator("#events")).to_contain_text(HOSTILE.replace("/", ""))
            open_volume(page, name)
            expect(page.locator("#facts")).to_contain_text(HOSTILE.replace("/", ""))
            expect(page.locator("#snapshots")).to_contain_text(f"note: {HOSTILE}")
            page.get_by_role("button", name="Restore s1").click()
            page.get_by_role("button", name="Show the plan").click()
            expect(page.get_by_role("list", name="What differs")).to_contain_text(HOSTILE.replace("/", ""))
            assert page.evaluate("[document.querySelectorAll('img, body script').length, window.hacked]") == [0, None]
    finally:
        forget(name)


def test_a_daemon_that_is_gone_is_told_and_one_that_is_back_is_heard(browser, module_place, volume):
    place = module_place / "dying"
    with browsing.site_at(place) as site, tab(browser) as page:
        sign_in(page, site, site.token("ann", "admin:*"))
        expect(row_of(page, volume[0])).to_be_visible()
        open_volume(page, volume[0])
        with contextlib.suppress(ProcessLookupError):
            site.api.process.send_signal(signal.SIGTERM)
        site.api.process.wait(60)
        told = page.get_by_role("alert").filter(has_text="The control daemon does not answer")
        expect(told).to_be_visible()
        expect(page.locator("#events-state")).to_contain_text("no answer for")
        page.get_by_role("button", name="Take a snapshot").click()
        page.get_by_role("button", name="Take", exact=True).click()
        dialog = page.get_by_role("dialog", name="Take a snapshot")
        expect(dialog.get_by_role("alert")).to_have_text("the control daemon does not answer")
        page.keyboard.press("Escape")
        again = start(site.api.path, site.environment)
        try:
            expect(told).to_be_hidden(timeout=60000)
            expect(page.locator("#events-state")).to_have_text("live", timeout=60000)
        finally:
            again.process.send_signal(signal.SIGTERM)
            assert again.process.wait(60) == 0


def test_what_a_bucket_does_not_have_yet_is_told(browser, site, signed_in, place):
    name = new_name()
    with s3_server.running(place / "s3") as server, toxiproxy.before(server.url) as line:
        server.make_bucket("box")
        secret = place / "credentials"
        keys = f"aws_access_key_id = {s3_server.ACCESS_KEY}\naws_secret_access_key = {s3_server.SECRET_KEY}\n"
        secret.write_text(f"[default]\n{keys}")
        secret.chmod(0o600)
        options = f"endpoint_url={line.url},region=us-east-1,addressing=path,credentials_file={secret}"
        body = {"volume_id": name, "source": "s3://box/v", "mount_point": f"{place}/mnt", "options": options}
        try:
            site.api.ok("POST", "/v1/volumes", body)
            site.api.ok("POST", f"/v1/volumes/{name}/mount")
            with tab(browser) as page:
                signed_in(page, fragment=f"#/volume/{name}")
                backlog = page.locator("#backlog")
                expect(backlog).to_contain_text("Storage has everything.")
                with open(place / "mnt/letter", "wb") as letter:
                    letter.write(bytes(3 * MIB))
                    line.cut()
                expect(backlog).to_contain_text(re.compile(r"1 file, 3 MiB, the oldest for \d+ s.*Last error: "))
                line.heal()
                expect(backlog).to_contain_text("Storage has everything.", timeout=60000)
        finally:
            line.heal()
            forget(name)


def test_an_owner_that_does_not_answer_is_not_taken_for_the_daemon(browser, site, volume, signed_in):
    with tab(browser) as page:
        page.route(re.compile(r"/v1/volumes/[^/]+/tasks"), lambda route: None)  # never answered
        signed_in(page)
        open_volume(page, volume[0])
        refused = page.get_by_role("alert").filter(has_text="the owner of the volume has not answered for 20 s")
        expect(refused).to_be_visible(timeout=40000)
        expect(page.get_by_text("The control daemon does not answer")).to_have_count(0)


# -- for whom --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("viewport", "dark"), [(PHONE, False), (PHONE, True), (WIDE, True)])
def test_it_fits_a_phone_and_a_wide_screen(browser, site, volume, signed_in, viewport, dark):
    with tab(browser, viewport=viewport, dark=dark) as page:
        signed_in(page)
        expect(row_of(page, volume[0]).locator(".badge")).to_have_text("ready")
        assert has_no_horizontal_scroll(page)
        open_volume(page, volume[0])
        expect(page.locator("#volume-state")).to_have_text("ready")
        assert has_no_horizontal_scroll(page)
        expect(page.locator("#list")).to_be_visible(visible=viewport is WIDE)
        for button in ("Start a copy", "Change limits", "Take a snapshot"):
            page.get_by_role("button", name=button).click()
            box = page.get_by_role("dialog").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
            page.keyboard.press("Escape")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 200) is dark
        if viewport is PHONE:
            page.get_by_role("link", name="All volumes").click()
            expect(row_of(page, volume[0])).to_be_visible()


def test_it_is_used_by_keyboard_and_everything_has_a_name(browser, site, volume, signed_in):
    with tab(browser) as page:
        signed_in(page)
        page.get_by_label("Search").fill(volume[0])
        expect(page.locator("#volumes > li")).to_have_count(1)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=volume[0], exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name=volume[0])).to_be_focused()
        page.get_by_role("button", name="Take a snapshot").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Name (empty: the moment)")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Take a snapshot")).to_be_focused()
        nameless = page.evaluate(
            """[...document.querySelectorAll("input, select, button, a, [role=meter], [role=progressbar]")]
                .filter(one => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
                .map(one => one.outerHTML)"""
        )
        assert nameless == []


def test_nothing_jumps_while_it_refreshes(browser, site, volume, signed_in):
    with tab(browser) as page:
        signed_in(page)
        page.get_by_label("Search").fill(volume[0])  # volumes of others come and go
        open_volume(page, volume[0])
        expect(page.locator("#volume-state")).to_have_text("ready")
        expect(page.locator("#no-tasks")).not_to_have_text("Asking the daemon…")
        page.wait_for_timeout(2000)
        page.on("console", lambda said: print(said.text))
        page.evaluate(
            """window.shift = 0;
               new PerformanceObserver(list => list.getEntries().forEach(one => {
                   window.shift += one.value;
                   console.log("shift", one.value, ...one.sources.map(source => source.node?.parentElement?.outerHTML));
               }))
                   .observe({type: "layout-shift"})"""
        )
        page.locator("#search").select_text()
        page.wait_for_timeout(6500)
        assert page.evaluate("window.shift") < UNSEEN


def test_with_a_thousand_volumes_only_rows_that_are_seen_are_asked_for(browser, site, signed_in):
    def describe(number):
        name = f"many-{number:04}"
        return {
            "volume_id": name, "uuid": "", "source": f"/srv/{name}", "mount_point": f"/mnt/{name}",
            "configured_mount_point": None, "options": "", "added_at": 0, "state": "ready", "read_only": False,
            "quota": {
                "volume_id": name, "backend_type": "posix", "is_live": True, "used_bytes": number * MIB,
                "quota_bytes": 1000 * MIB, "file_count": 1, "quota_inodes": None,
            },
        }  # fmt: skip

    volumes = [describe(number) for number in range(1000)]
    asked = []

    def answer_list(route):
        query = dict(re.findall(r"(limit|cursor)=(\w+)", route.request.url))
        first, last = int(query.get("cursor", 0)), int(query.get("cursor", 0)) + int(query["limit"])
        route.fulfill(json={"items": volumes[first:last], "next_cursor": str(last) if last < len(volumes) else None})

    def answer_status(route):
        name = route.request.url.split("/")[-2]
        asked.append(name)
        quota = volumes[int(name[-4:])]["quota"]
        route.fulfill(json={"state": "ready", "mount_point": "/", "quota": quota, "problems": []})

    with tab(browser) as page:
        page.route(re.compile(r"/v1/volumes\?"), answer_list)
        page.route(re.compile(r"/v1/volumes/[^/]+/status"), answer_status)
        began = time.monotonic()
        signed_in(page)
        expect(page.locator("#list-count")).to_have_text("1 000 volumes")
        print(f"1000 volumes were listed after {time.monotonic() - began:.1f} s")
        rows = page.locator("#volumes > li")
        expect(rows).to_have_count(20)
        expect(rows.first).to_contain_text("0 B of 1000 MiB")
        page.wait_for_timeout(6000)
        assert set(asked) == {f"many-{number:04}" for number in range(20)} and len(asked) <= 80
        asked.clear()
        page.get_by_role("button", name="Next").click()
        expect(rows.first).to_contain_text("many-0020")
        page.get_by_label("Search").fill("999")
        expect(rows).to_have_count(1)
        expect(rows.first).to_contain_text("999 MiB of 1000 MiB (99 %)")
        expect(page.locator("#list-count")).to_have_text("1 volume of 1000")
        page.wait_for_timeout(500)
        assert set(asked) <= {"many-0999", *(f"many-{number:04}" for number in range(40))}


def test_sizes_are_written_and_read_as_on_the_command_line(browser, site):
    sizes = ["0", "1", "1023", "500M", "10GiB", "10GB", "1.5k", "1.5", "none", " 7 MiB ", "1ib", "10XB", "-1", "", "1B"]
    counts = ["0", "100000", "1M", "10K", "2g", "none", "1.5M", "x", ""]

    def read(parse, text):
        try:
            return parse(text)
        except ValueError:
            return "refused"

    def in_browser(function, given):
        return page.evaluate(
            """async ([name, given]) => {
                const units = await import("/page/units.js");
                return given.map(one => { try { return units[name](one); } catch { return "refused"; } });
            }""",
            [function, given],
        )

    with tab(browser) as page:
        page.goto(site.url)
        assert in_browser("parseBytes", sizes) == [read(parse_size, text) for text in sizes]
        assert in_browser("parseCount", counts) == [read(parse_count, text) for text in counts]
        numbers_ = [0, 1, 1023, 1024, 1536, 500000, 10**9, 64 * MIB, 3 << 40, 2**52]
        assert in_browser("formatBytes", numbers_) == [format_size(number) for number in numbers_]
        written = in_browser("writeBytes", [*numbers_, None])
        assert [parse_size(text) for text in written] == [*numbers_, None]
