"""A share of Hammerspace, from nothing to nothing, by the command line alone."""

import json

import pytest

import shares
from mounting import detach, find_mount, volgate
from volgate.core.fence import fence_bytes
from volgate.drivers.hammerspace.anvil import MARK

NAME = "sharetest"


@pytest.fixture
def share(place):
    with shares.running(place) as found:
        yield found


@pytest.fixture(autouse=True)
def forgotten():
    yield
    volgate("volume", "delete", NAME)


def test_a_share_is_made_mounted_fenced_and_removed(share, place):
    anvil, data, path = share.anvil, share.data, place / "volume"
    options = f"{share.options},objectives=keep-online"
    create = ("volume", "create", NAME, share.source, "--quota", "1MiB", "-o", options)
    early = volgate(*create)
    assert early.returncode != 0 and "is not mounted at" in early.stderr
    assert anvil.shares["projects"]["extendedInfo"] == {MARK: NAME}
    path.mkdir()
    with shares.bound(share):
        made = volgate(*create)
        assert made.returncode == 0, made.stderr
        started = volgate("mount", NAME, path, "-d")
        assert started.returncode == 0, started.stderr
        try:
            (path / "f").write_bytes(bytes(1000))
            assert (data / "f").stat().st_size == 1000
            assert anvil.shares["projects"]["shareSizeLimit"] == str(fence_bytes(1 << 20))
            with pytest.raises(OSError, match="quota"):
                (path / "big").write_bytes(bytes(2 << 20))
            (data / ".snapshot").mkdir()
            assert ".snapshot" not in [entry.name for entry in path.iterdir()]
            assert not (path / ".snapshot").exists()
            assert volgate("volume", "delete", NAME, "--with-share", "--yes").returncode != 0
            taken = volgate("snapshot", "create", path, "s1")
            assert taken.returncode == 0, taken.stderr
            (path / "f").write_bytes(b"changed")
            assert (path / ".snapshots/s1/f").read_bytes() == bytes(1000)
            deleted = volgate("snapshot", "delete", path, "s1")
            assert deleted.returncode == 0, deleted.stderr
            said = volgate("doctor", NAME).stdout
            assert "limit 65 MiB" in said and "objectives: keep-online" in said and "MISSING" not in said, said
        finally:
            stopped = volgate("umount", path)
            if find_mount(path):
                detach(path)
        assert stopped.returncode == 0, stopped.stderr
        refused = volgate("volume", "delete", NAME, "--with-share")
        assert refused.returncode != 0 and "--yes" in refused.stderr
        assert (data / "f").exists()
        removed = volgate("volume", "delete", NAME, "--with-share", "--yes")
        assert removed.returncode == 0, removed.stderr
        assert anvil.shares["projects"]["shareState"] == "REMOVED"


def doctor(source, options):
    done = volgate("doctor", source, "--json", "-o", options)
    return done.returncode, json.loads(done.stdout)


def lines(findings, check):
    return " ".join(f"{found['message']} -> {found['remedy']}" for found in findings if found["check"] == check)


def test_doctor_asks_the_anvil_though_the_share_is_not_mounted(share):
    status, findings = doctor(share.source, share.options)
    assert status == 1 and "the share is not mounted at" in lines(findings, "directory")
    assert "'volgate volume create' makes it" in lines(findings, "storage")
    share.anvil.add_share("projects", extendedInfo={MARK: NAME})
    status, findings = doctor(share.source, share.options)
    assert status == 1 and "mount -t nfs" in lines(findings, "directory")
    assert f"made for the volume {NAME}, " in lines(findings, "share")
    assert "volume create" not in json.dumps(findings)


def test_doctor_tells_what_is_wrong_with_the_anvil_and_what_mends_it(share, place):
    share.anvil.add_share("projects", extendedInfo={MARK: NAME})
    with shares.bound(share):
        lax = lines(doctor(share.source, f"{share.options},verify_tls=no,objectives=keep-online")[1], "storage")
        assert "any certificate is trusted" in lax and "ca_bundle=" in lax
        assert "lacks the objective 'keep-online': set it on the Anvil" in lax and "again" not in lax
        (place / "login").write_text("[default]\nusername = admin\npassword = wrong\n")
        assert f"correct {place / 'login'}" in lines(doctor(share.source, share.options)[1], "storage")
        nobody = "hammerspace://127.0.0.1:1/projects"
        assert "check the name and the port" in lines(doctor(nobody, share.options)[1], "storage")


def test_doctor_tells_of_a_limit_above_what_the_storage_has(share):
    share.anvil.add_share("projects", extendedInfo={MARK: NAME})
    with shares.bound(share):
        create = ("volume", "create", NAME, share.source, "--quota", "7EiB", "-o", share.options)
        made = volgate(*create)
        assert made.returncode == 0, made.stderr
        assert "above all that the storage has" in volgate("doctor", NAME).stdout
        assert volgate("quota", "set", NAME, "1MiB").returncode == 0
        assert "above all" not in volgate("doctor", NAME).stdout


def test_options_of_buckets_are_refused(place):
    refused = volgate("mount", "hammerspace://127.0.0.1/x", place, "-o", "cache_dir=/x")
    assert refused.returncode != 0 and "cache_dir" in refused.stderr


def test_a_directory_is_not_removed_with_its_volume(place):
    (place / "data").mkdir()
    assert volgate("volume", "create", NAME, place / "data").returncode == 0
    refused = volgate("volume", "delete", NAME, "--with-share", "--yes")
    assert refused.returncode != 0 and "is no share" in refused.stderr
    assert (place / "data").is_dir()
