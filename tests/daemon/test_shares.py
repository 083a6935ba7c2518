"""A share of Hammerspace, from nothing to nothing, by the command line alone."""

import subprocess

import pytest

from mounting import detach, find_mount, volgate
from volgate.core.fence import fence_bytes
from volgate.drivers.hammerspace.anvil import MARK
from volgate.testing.fake_anvil import FakeAnvil

NAME = "sharetest"


@pytest.fixture
def anvil(place):
    made = place / "certificate.pem", place / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=anvil", "-addext", "subjectAltName=IP:127.0.0.1", "-out", made[0], "-keyout", made[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    (place / "login").write_text("[default]\nusername = admin\npassword = secret\n")
    (place / "login").chmod(0o600)
    with FakeAnvil(place / "shares", made).running() as found:
        yield found


@pytest.fixture(autouse=True)
def forgotten():
    yield
    volgate("volume", "delete", NAME)


def test_a_share_is_made_mounted_fenced_and_removed(anvil, place):
    source, share, mounted, path = (
        f"hammerspace://127.0.0.1:{anvil.port}/projects",
        anvil.place / "projects",
        place / "nfs",
        place / "volume",
    )
    options = f"mount_path={mounted},credentials_file={place / 'login'},ca_bundle={place / 'certificate.pem'}"
    create = ("volume", "create", NAME, source, "--quota", "1MiB", "-o", options)
    early = volgate(*create)
    assert early.returncode != 0 and "is not mounted at" in early.stderr
    assert anvil.shares["projects"]["extendedInfo"] == {MARK: NAME}
    mounted.mkdir()
    path.mkdir()
    subprocess.run(["mount", "--bind", share, mounted], check=True)
    try:
        made = volgate(*create)
        assert made.returncode == 0, made.stderr
        started = volgate("mount", NAME, path, "-d")
        assert started.returncode == 0, started.stderr
        try:
            (path / "f").write_bytes(bytes(1000))
            assert (share / "f").stat().st_size == 1000
            assert anvil.shares["projects"]["shareSizeLimit"] == str(fence_bytes(1 << 20))
            with pytest.raises(OSError, match="quota"):
                (path / "big").write_bytes(bytes(2 << 20))
            (share / ".snapshot").mkdir()
            assert ".snapshot" not in [entry.name for entry in path.iterdir()]
            assert not (path / ".snapshot").exists()
            assert volgate("volume", "delete", NAME, "--with-share", "--yes").returncode != 0
            taken = volgate("snapshot", "create", path, "s1")
            assert taken.returncode == 0, taken.stderr
            (path / "f").write_bytes(b"changed")
            assert (path / ".snapshots/s1/f").read_bytes() == bytes(1000)
            deleted = volgate("snapshot", "delete", path, "s1")
            assert deleted.returncode == 0, deleted.stderr
        finally:
            stopped = volgate("umount", path)
            if find_mount(path):
                detach(path)
        assert stopped.returncode == 0, stopped.stderr
        refused = volgate("volume", "delete", NAME, "--with-share")
        assert refused.returncode != 0 and "--yes" in refused.stderr
        assert (share / "f").exists()
        removed = volgate("volume", "delete", NAME, "--with-share", "--yes")
        assert removed.returncode == 0, removed.stderr
        assert anvil.shares["projects"]["shareState"] == "REMOVED"
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


def test_options_of_buckets_are_refused(place):
    refused = volgate("mount", "hammerspace://127.0.0.1/x", place, "-o", "cache_dir=/x")
    assert refused.returncode != 0 and "cache_dir" in refused.stderr


def test_a_directory_is_not_removed_with_its_volume(place):
    (place / "data").mkdir()
    assert volgate("volume", "create", NAME, place / "data").returncode == 0
    refused = volgate("volume", "delete", NAME, "--with-share", "--yes")
    assert refused.returncode != 0 and "is no share" in refused.stderr
    assert (place / "data").is_dir()
