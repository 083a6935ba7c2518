"""The driver of Hammerspace shares, over a bind-mounted share and an Anvil that goes wrong in every way known."""

import subprocess

import pytest
import trio

import shares
from volgate import errors
from volgate.core.fence import fence_bytes
from volgate.drivers.hammerspace.anvil import MARK, Anvil
from volgate.drivers.hammerspace.backend import HammerspaceBackend
from volgate.drivers.hammerspace.settings import HammerspaceSettings
from volgate.testing.backend_contract import CONTEXT, OWNER, BackendContract, get, make_directory, put, run
from volgate.testing.fake_anvil import FakeAnvil
from volgate.volume.fence import set_fence


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return shares.make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def anvil(tmp_path, certificate):
    with FakeAnvil(tmp_path / "shares", certificate).running() as found:
        yield found


@pytest.fixture
def options(tmp_path, certificate):
    return {
        "mount_path": str(tmp_path / "mounted"),
        "credentials_file": str(shares.make_login(tmp_path)),
        "ca_bundle": str(certificate[0]),
    }


@pytest.fixture
def settings(anvil, options):
    return HammerspaceSettings.from_source(f"hammerspace://127.0.0.1:{anvil.port}/projects", options)


@pytest.fixture
def control(settings):
    return Anvil(settings, timeout_s=5, deadline_s=5, poll_s=0.01)


@pytest.fixture
def share_mount(anvil, settings):
    (anvil.place / "projects").mkdir(parents=True)
    settings.mount_path.mkdir()
    subprocess.run(["mount", "--bind", anvil.place / "projects", settings.mount_path], check=True)
    yield settings.mount_path
    subprocess.run(["umount", "-l", settings.mount_path], check=True)


@pytest.fixture
def make_backend(share_mount, settings):
    return lambda: HammerspaceBackend(settings, Anvil(settings, timeout_s=5, deadline_s=5, poll_s=0.01))


class TestHammerspace(BackendContract):
    @pytest.fixture
    def make_backend(self, share_mount, settings):
        return lambda: HammerspaceBackend(settings, Anvil(settings, timeout_s=5, deadline_s=5, poll_s=0.01))


# -- creating, resizing, removing -------------------------------------------------------------------------------


def test_a_share_is_made_once_by_its_task_and_seen_late(anvil, control):
    anvil.task_looks, anvil.visible_after = 3, 3
    trio.run(control.create_share, "mine")
    trio.run(control.create_share, "mine")
    assert anvil.shares["projects"]["extendedInfo"] == {MARK: "mine"}
    assert anvil.requests.count("POST /shares") == 1


def test_objectives_are_set_once_and_one_that_is_not_there_is_told_before_anything_is_made(anvil, options):
    source = f"hammerspace://127.0.0.1:{anvil.port}/projects"

    def control(objectives):
        settings = HammerspaceSettings.from_source(source, {**options, "objectives": objectives})
        return Anvil(settings, timeout_s=5, deadline_s=5, poll_s=0.01)

    with pytest.raises(errors.InvalidArgument, match="no objective 'fast'; it has Place on nodes, keep-online"):
        trio.run(control("keep-online+fast").create_share, "mine")
    assert anvil.shares == {}
    for _ in range(2):
        trio.run(control("keep-online+Place on nodes").create_share, "mine")
    state = trio.run(control("").describe_share)
    assert state.objectives == ("keep-online", "Place on nodes") and state.volume_id == "mine"
    assert sum(asked.endswith("objective-set") for asked in anvil.requests) == 2


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [("RESUMED", errors.InputOutput, "ended as RESUMED"), ("PAUSED", errors.TimedOut, "its task is PAUSED")],
)
def test_a_task_in_an_odd_state_is_named(anvil, settings, status, error, said):
    anvil.task_ends_as = status
    with pytest.raises(error, match=said):
        trio.run(Anvil(settings, deadline_s=0.5, poll_s=0.01).create_share, "mine")


def test_what_the_anvil_says_of_the_share_is_told(anvil, make_backend):
    anvil.add_share("projects", extendedInfo={MARK: CONTEXT.volume_id}, shareSizeLimit="1073741824")

    async def test(backend, root):
        found = await backend.inspect()
        assert found.facts["share"] == f"made for the volume {CONTEXT.volume_id}, 4 KiB of 1 TiB used, limit 1 GiB"
        assert "512 GiB are free in the cluster" in found.facts["anvil"]
        assert found.missing == ()
        anvil.shares["projects"]["extendedInfo"] = {}
        assert "not made by volgate" in (await backend.inspect()).missing[0]
        anvil.inject(503, "GET /shares")
        assert "HTTP 503" in (await backend.inspect()).missing[0]

    run(make_backend, test)


def test_a_share_that_never_shows_ends_by_the_deadline_and_is_found_later(anvil, settings):
    control = Anvil(settings, deadline_s=0.5, poll_s=0.01)
    anvil.visible_after = 10**6
    with pytest.raises(errors.TimedOut, match="not seen yet"):
        trio.run(control.create_share, "mine")
    anvil.shares["projects"]["unseen"] = 0
    trio.run(control.create_share, "mine")
    assert anvil.requests.count("POST /shares") == 1


def test_a_creation_that_broke_off_is_gone_on_with(anvil, control):
    anvil.task_looks = 2
    anvil.inject("cut", "GET /tasks/")
    with pytest.raises(errors.Unavailable, match="cut"):
        trio.run(control.create_share, "mine")

    async def look_and_create():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.create_share, "mine")
            for task in anvil.tasks:
                for _ in range(3):
                    anvil._look_at(task)

    trio.run(look_and_create)
    assert list(anvil.shares) == ["projects"]


@pytest.mark.parametrize("info", [{}, {MARK: "other"}, None])
def test_a_share_of_others_is_never_taken_over_resized_or_removed(anvil, control, info):
    anvil.add_share("projects", extendedInfo=info)
    with pytest.raises(errors.AlreadyExists, match="not this volume's"):
        trio.run(control.create_share, "mine")
    with pytest.raises(errors.PermissionDenied, match="left as it is"):
        trio.run(control.delete_share, "mine")
    if not info:
        with pytest.raises(errors.PermissionDenied, match="left as it is"):
            trio.run(control.resize_share, 1)
    assert anvil.shares["projects"]["shareState"] == "PUBLISHED"


def test_a_task_that_fails_says_why(anvil, control):
    anvil.task_ends_as = "FAILED"
    with pytest.raises(errors.InputOutput, match="FAILED: no volume has room"):
        trio.run(control.create_share, "mine")
    assert anvil.shares == {}


def test_the_fence_stands_above_the_limit_and_is_lifted(anvil, make_backend):
    async def test(backend, root):
        await set_fence(backend, 1 << 30, None)
        assert anvil.shares["projects"]["shareSizeLimit"] == str(fence_bytes(1 << 30))
        await set_fence(backend, 1 << 30, None)
        assert anvil.requests.count("PUT /shares/projects") == 1
        await set_fence(backend, None, None)
        assert anvil.shares["projects"]["shareSizeLimit"] is None

    run(make_backend, test)


def test_a_removed_share_leaves_a_tombstone_that_is_no_share(anvil, control):
    trio.run(control.create_share, "mine")
    trio.run(control.delete_share, "mine")
    assert anvil.shares["projects"]["shareState"] == "REMOVED"
    trio.run(control.delete_share, "mine")
    trio.run(control.create_share, "mine")
    assert anvil.shares["projects"]["shareState"] == "PUBLISHED"


def test_numbers_come_as_strings(anvil, control):
    anvil.add_share("projects")
    state = trio.run(control.describe_share)
    assert (state.size_bytes, state.used_bytes) == (1 << 40, 4096)
    anvil.shares["projects"]["space"] = {"total": "much", "used": 1}
    with pytest.raises(errors.InputOutput, match="where a number belongs"):
        trio.run(control.describe_share)


# -- what goes wrong on the way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_cookie_that_ran_out_is_renewed_once(anvil, control, status):
    anvil.refusal = status
    anvil.add_share("projects")
    trio.run(control.find_share)
    anvil.expire()
    assert trio.run(control.find_share)["name"] == "projects"
    assert anvil.requests.count("POST /login") == 2


def test_a_refusal_in_spite_of_a_login_is_not_repeated_for_ever(anvil, control):
    trio.run(control.find_share)
    anvil.cookies = type("Lost", (set,), {"add": lambda self, cookie: None})()
    with pytest.raises(errors.PermissionDenied, match="may not GET"):
        trio.run(control.find_share)
    assert anvil.requests.count("POST /login") == 2


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (500, errors.Unavailable, "HTTP 500"),
        (503, errors.Unavailable, "HTTP 503"),
        ("garbage", errors.InputOutput, "no JSON"),
        ("cut", errors.Unavailable, "cut the connection"),
    ],
)
def test_a_fault_is_told_in_one_line(anvil, control, fault, error, said):
    anvil.inject(fault, "GET /shares")
    with pytest.raises(error, match=said) as caught:
        trio.run(control.find_share)
    assert "\n" not in str(caught.value)
    assert trio.run(control.find_share) is None


def test_a_server_that_hangs_is_given_up(anvil, settings):
    anvil.inject("hang", "GET /shares")
    with pytest.raises(errors.TimedOut, match=r"within 0\.5 s"):
        trio.run(Anvil(settings, timeout_s=0.5).find_share)


def test_nobody_there_is_told(anvil, options):
    nobody = HammerspaceSettings.from_source("hammerspace://127.0.0.1:1/projects", options)
    with pytest.raises(errors.Unavailable, match="cannot be reached"):
        trio.run(Anvil(nobody).find_share)


def test_a_certificate_that_is_not_trusted_is_refused_unless_asked_for(anvil, options):
    del options["ca_bundle"]
    source = f"hammerspace://127.0.0.1:{anvil.port}/projects"
    with pytest.raises(errors.PermissionDenied, match="not trusted"):
        trio.run(Anvil(HammerspaceSettings.from_source(source, options)).find_share)
    assert anvil.requests == []
    lax = HammerspaceSettings.from_source(source, options | {"verify_tls": "no"})
    assert trio.run(Anvil(lax).find_share) is None


def test_a_wrong_password_is_told(anvil, settings):
    settings.credentials_file.write_text("[default]\nusername = admin\npassword = wrong\n")
    with pytest.raises(errors.PermissionDenied, match="refuses the login of admin"):
        trio.run(Anvil(settings).find_share)


def test_a_login_that_others_may_read_is_refused(settings):
    settings.credentials_file.chmod(0o640)
    with pytest.raises(errors.BadConfiguration, match="chmod 600"):
        trio.run(Anvil(settings).find_share)


# -- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a:b", "a*", "a[b", "x" * 81, "a/b", ".."])
def test_names_that_no_share_can_have_are_refused(name):
    with pytest.raises(errors.IllegalName, match="no share can be called"):
        HammerspaceSettings.from_source(f"hammerspace://anvil/{name}", {})


@pytest.mark.parametrize("source", ["hammerspace://anvil", "hammerspace:///x", "hammerspace://u:p@anvil/x"])
def test_what_names_no_share_is_refused(source):
    with pytest.raises(errors.BadConfiguration):
        HammerspaceSettings.from_source(source, {})


def test_options_of_buckets_are_refused():
    with pytest.raises(errors.BadConfiguration, match="region"):
        HammerspaceSettings.from_source("hammerspace://anvil/x", {"region": "x"})


# -- the directory ----------------------------------------------------------------------------------------------


def test_a_share_that_is_not_mounted_is_not_the_disk_below(anvil, settings):
    settings.mount_path.mkdir()
    with pytest.raises(errors.NotFound, match="not mounted at"):
        trio.run(HammerspaceBackend(settings).open_volume, CONTEXT)


@pytest.mark.parametrize("names", [b"", b"nonsense", b"[]", b'{"before": "gone"}'])
def test_names_of_snapshots_that_mean_nothing_are_no_hindrance(make_backend, names):
    """Notes may be damaged, and a snapshot may have been deleted on the Anvil."""

    async def test(backend, root):
        await backend.store_reserved("snapshots.json", names)
        assert await backend.list_snapshots() == []
        await backend.create_snapshot("before")
        assert [found.name for found in await backend.list_snapshots()] == ["before"]
        await backend.delete_snapshot("before")

    run(make_backend, test)


def test_a_snapshot_that_is_taken_while_another_is_deleted_keeps_its_name(make_backend):
    async def test(backend, root):
        await backend.create_snapshot("one")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.delete_snapshot, "one")
            nursery.start_soon(backend.create_snapshot, "two")
        assert [found.name for found in await backend.list_snapshots()] == ["two"]

    run(make_backend, test)


def test_snapshots_are_hidden_and_opened_by_name_read_only(anvil, make_backend):
    async def test(backend, root):
        await put(backend, await make_directory(backend, root, b"d"), b"f", b"old")
        await backend.create_snapshot("before")
        with pytest.raises(errors.AlreadyExists):
            await backend.create_snapshot("before")
        assert (anvil.place / "projects" / ".snapshot").is_dir()
        assert b".snapshot" not in await backend.list_names(root)
        assert await backend.find_attributes(root, b".snapshot") is None
        with pytest.raises(errors.NotFound):
            await backend.open_directory(root, b".snapshot", 0)
        with pytest.raises(errors.IllegalName):
            await put(backend, root, b".snapshot")
        (found,) = await backend.list_snapshots()
        assert found.name == "before" and found.created_at > 1e9
        folder = await backend.open_directory(await backend.open_snapshot("before"), b"d", 0)
        assert await get(backend, folder, b"f") == b"old"
        for call in (
            backend.create_file(folder, b"g", 0o600, OWNER),
            backend.open_file(folder, b"f", 0, writable=True),
            backend.remove(folder, b"f", is_directory=False),
            backend.rename(folder, b"f", root, b"f"),
        ):
            with pytest.raises(errors.ReadOnly):
                await call
        await backend.delete_snapshot("before")
        assert await backend.list_snapshots() == []
        with pytest.raises(errors.NotFound):
            await backend.open_snapshot("before")

    run(make_backend, test)


def test_snapshots_of_a_file_are_hidden_and_deleted_one_by_one(anvil, make_backend):
    async def test(backend, root):
        folder = await make_directory(backend, root, b"d")
        await put(backend, folder, b"f", b"one")
        await backend.create_file_snapshot("one", "d/f")
        await backend.remove(folder, b"f", is_directory=False)
        await put(backend, folder, b"f", b"two")
        await backend.create_file_snapshot("two", "d/f")
        with pytest.raises(errors.AlreadyExists):
            await backend.create_file_snapshot("one", "d/f")
        with pytest.raises(errors.AlreadyExists):
            await backend.create_snapshot("one")
        assert (anvil.place / "projects/d/.fsnapshot/f").is_dir()
        assert await backend.list_names(folder) == [b"f"]
        assert await backend.find_attributes(folder, b".fsnapshot") is None
        with pytest.raises(errors.NotFound):
            await backend.open_directory(folder, b".fsnapshot", 0)
        with pytest.raises(errors.IllegalName):
            await put(backend, folder, b".fsnapshot")
        assert {found.name: found.path for found in await backend.list_snapshots()} == {"one": "d/f", "two": "d/f"}
        await backend.delete_snapshot("two")  # the Anvil deletes by the second
        (found,) = await backend.list_snapshots()
        assert (found.name, found.damaged) == ("one", "")
        opened = await backend.open_snapshot("one")
        tree = backend.backend_of_snapshot(opened)
        inner = await tree.open_directory(opened, b"d", 0)
        assert await get(tree, inner, b"f") == b"one"
        with pytest.raises(errors.ReadOnly):
            await tree.open_file(inner, b"f", 0, writable=True)
        with pytest.raises(errors.NotFound):
            await tree.get_attributes(inner, b"g")

    run(make_backend, test)


@pytest.mark.parametrize(
    ("fault", "error"), [(503, errors.Unavailable), ("garbage", errors.InputOutput), ("cut", errors.Unavailable)]
)
def test_a_snapshot_of_a_file_that_goes_wrong_is_not_there(anvil, make_backend, fault, error):
    async def test(backend, root):
        await put(backend, root, b"f", b"old")
        anvil.inject(fault, "POST /file-snapshots/create")
        with pytest.raises(error):
            await backend.create_file_snapshot("one", "f")
        assert await backend.list_snapshots() == []
        await backend.create_file_snapshot("one", "f")
        anvil.inject(fault, "POST /file-snapshots/delete")
        if fault != "garbage":  # of which nothing is expected here
            with pytest.raises(error):
                await backend.delete_snapshot("one")
            assert len(await backend.list_snapshots()) == 1
        await backend.delete_snapshot("one")
        assert await backend.list_snapshots() == []

    run(make_backend, test)


def test_a_snapshot_of_a_file_whose_name_cannot_be_kept_is_undone(anvil, make_backend, monkeypatch):
    async def test(backend, root):
        await put(backend, root, b"f", b"old")

        async def fail(name, content):
            raise errors.NoSpace

        monkeypatch.setattr(backend, "store_reserved", fail)
        with pytest.raises(errors.NoSpace):
            await backend.create_file_snapshot("one", "f")
        assert list((anvil.place / "projects/.fsnapshot/f").iterdir()) == []

    run(make_backend, test)
