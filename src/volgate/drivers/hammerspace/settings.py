"""Which share of which Anvil, mounted where: everything that ``hammerspace://ANVIL[:PORT]/SHARE`` and options say."""

from __future__ import annotations

import configparser
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import attrs

from volgate.errors import BadConfiguration, IllegalName

DEFAULT_PORT: Final = 8443
MAX_SHARE_NAME: Final = 80
_FORBIDDEN: Final = re.compile(r'["/\\\[\]:|<>+;,?*=\x00-\x1f]')
OPTIONS: Final = frozenset({"mount_path", "credentials_file", "ca_bundle", "verify_tls", "objectives"})
"""Names of the options that this driver takes."""


@attrs.frozen
class Login:
    """Who asks. Attributes: username; password: never shown."""

    username: str
    password: str = attrs.field(repr=False)


@attrs.frozen
class HammerspaceSettings:
    """Where the share lies and how its Anvil is asked.

    Attributes:
        host, port: of the Anvil. share: its name.
        mount_path: where this host has the share mounted by NFS.
        credentials_file: has the name and the password; None = control calls are refused.
        ca_bundle: PEM file of authorities to trust in place of the system's. verify_tls: no = trust any certificate.
        objectives: names of those that a share gets when it is made.
    """

    host: str
    port: int
    share: str
    mount_path: Path
    credentials_file: Path | None = None
    ca_bundle: Path | None = None
    verify_tls: bool = True
    objectives: tuple[str, ...] = ()

    @classmethod
    def from_source(cls, source: str, options: Mapping[str, str]) -> Self:
        """Return the settings of ``hammerspace://ANVIL[:PORT]/SHARE``.

        Raises:
            BadConfiguration: the URL, or an option, is none. IllegalName: no share can be called so.
        """
        unknown = set(options) - OPTIONS
        if unknown:
            raise BadConfiguration(f"{min(unknown)}: hammerspace:// takes {', '.join(sorted(OPTIONS))} only")
        parts, share = urlsplit(source), urlsplit(source).path.strip("/")
        try:
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise BadConfiguration(f"'{source}': {error}") from error
        if not parts.hostname or not share or "@" in parts.netloc or parts.query or parts.fragment:
            raise BadConfiguration(f"'{source}' names no share; write hammerspace://ANVIL[:PORT]/SHARE")
        check_share_name(share)
        verify = options.get("verify_tls", "yes")
        if verify not in ("yes", "no"):
            raise BadConfiguration(f"verify_tls: '{verify}' is none of yes, no")
        credentials, bundle = options.get("credentials_file"), options.get("ca_bundle")
        return cls(
            parts.hostname,
            port,
            share,
            Path(options.get("mount_path") or f"/mnt/hammerspace/{share}"),
            Path(credentials) if credentials else None,
            Path(bundle) if bundle else None,
            verify == "yes",
            tuple(name for name in options.get("objectives", "").split("+") if name),
        )


def check_share_name(name: str) -> None:
    """Raise IllegalName for what no share can be called."""
    if len(name) > MAX_SHARE_NAME or _FORBIDDEN.search(name) or name in (".", ".."):
        raise IllegalName(
            f"no share can be called '{name}': 1-{MAX_SHARE_NAME} characters, none of \" / \\ [ ] : | < > + ; , ? * ="
        )


def read_login(path: Path | None) -> Login:
    """Return the name and password of a file: ``[default]``, ``username = ...``, ``password = ...``.

    Raises:
        BadConfiguration: none is named, it cannot be read, has no login, or others than its owner may read it.
    """
    if path is None:
        raise BadConfiguration("the Anvil wants a login: name a file that has it with credentials_file=")
    try:
        mode = os.stat(path).st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadConfiguration(f"credentials file {path} cannot be read: {reason}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadConfiguration(f"credentials file {path}: other users may read it; chmod 600 {path}")
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text)
        section = parser[parser.sections()[0]]
        return Login(section["username"], section["password"])
    except (configparser.Error, IndexError, KeyError):
        # Without the cause: a parser's message quotes the line, which may be the secret.
        raise BadConfiguration(
            f"credentials file {path}: write [default], then username = ... and password = ..."
        ) from None
