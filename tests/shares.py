"""An Anvil that tests can ask, and its shares mounted where a volume looks for them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs

from volgate.testing.fake_anvil import FakeAnvil


def make_certificate(place: Path) -> tuple[Path, Path]:
    """Return a certificate for the loopback, and its key."""
    made = place / "certificate.pem", place / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=anvil", "-addext", "subjectAltName=IP:127.0.0.1", "-out", made[0], "-keyout", made[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return made


def make_login(place: Path) -> Path:
    """Return a file with the login that the fake knows."""
    login = place / "login"
    login.write_text("[default]\nusername = admin\npassword = secret\n")
    login.chmod(0o600)
    return login


@attrs.frozen
class Share:
    """A share of an Anvil that runs.

    Attributes:
        anvil: the fake. data: the share's directory. mounted: where this host shall have it. options: of the driver.
    """

    anvil: FakeAnvil
    data: Path
    mounted: Path
    options: str

    @property
    def source(self) -> str:
        return f"hammerspace://127.0.0.1:{self.anvil.port}/{self.data.name}"


@contextlib.contextmanager
def running(place: Path, name: str = "projects") -> Iterator[Share]:
    """Run an Anvil for a share that is not made yet, in ``place``."""
    certificate, mounted = make_certificate(place), place / "nfs"
    mounted.mkdir()
    options = f"mount_path={mounted},credentials_file={make_login(place)},ca_bundle={certificate[0]}"
    with FakeAnvil(place / "shares", certificate).running() as anvil:
        yield Share(anvil, anvil.place / name, mounted, options)


@contextlib.contextmanager
def bound(share: Share) -> Iterator[None]:
    """Have the share mounted, as NFS would."""
    share.data.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", share.data, share.mounted], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", share.mounted], check=True)
