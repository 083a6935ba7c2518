"""Who asks: a file of the volume's own, a systemd credential, or what boto3 finds; read again when it changes.

A secret is never in the configuration, only where to find it. Nothing here is logged.
"""

from __future__ import annotations

import configparser
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from volgate.errors import BadConfiguration, PermissionDenied

if TYPE_CHECKING:
    from volgate.drivers.s3.settings import S3Settings

SYSTEMD_CREDENTIAL: Final = "s3"
"""Name of the unit's credential (``LoadCredential=s3:/etc/volgate/s3.credentials``, systemd.exec(5))."""


@attrs.frozen
class Credentials:
    """An access key. Attributes: access_key; secret_key, session_token: never shown."""

    access_key: str
    secret_key: str = attrs.field(repr=False)
    session_token: str | None = attrs.field(default=None, repr=False)


def find_credentials(
    settings: S3Settings, environment: Mapping[str, str] = os.environ
) -> Callable[[], Credentials] | None:
    """Return a function that gives the credentials of this moment; None for anonymous access.

    In this order: the settings' file, systemd's credential of the unit, boto3's chain (environment, ~/.aws, container
    and instance roles). The function is called for every request, from any thread, and raises what this one does.

    Raises:
        BadConfiguration: the file cannot be read, has no key, or the world may read it. PermissionDenied: none found.
    """
    if settings.anonymous:
        return None
    if settings.credentials_file is not None:
        return _checked(_File(settings.credentials_file).read)
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if directory and Path(directory, SYSTEMD_CREDENTIAL).exists():
        return _checked(_File(Path(directory, SYSTEMD_CREDENTIAL)).read)
    return _checked(_of_boto3())


def _checked(read: Callable[[], Credentials]) -> Callable[[], Credentials]:
    read()
    return read


class _File:
    """A file of the form of ~/.aws/credentials; its first section counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[tuple[int, int], Credentials] | None = None

    def read(self) -> Credentials:
        try:
            status = os.stat(self._path)
            version = (status.st_mtime_ns, status.st_ino)
            if self._known is not None and self._known[0] == version:
                return self._known[1]
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise BadConfiguration(f"credentials file {self._path} cannot be read: {reason}") from error
        if stat.S_IMODE(status.st_mode) & stat.S_IROTH:
            raise BadConfiguration(f"credentials file {self._path}: all users may read it; chmod 600 {self._path}")
        credentials = self._parse(text)
        self._known = version, credentials
        return credentials

    def _parse(self, text: str) -> Credentials:
        parser = configparser.ConfigParser(interpolation=None, default_section="")
        try:
            parser.read_string(text)
            section = parser[parser.sections()[0]]
            return Credentials(
                section["aws_access_key_id"], section["aws_secret_access_key"], section.get("aws_session_token")
            )
        except (configparser.Error, IndexError, KeyError):
            # Without the cause: a parser's message quotes the line, which may be the secret.
            raise BadConfiguration(
                f"credentials file {self._path}: write it as ~/.aws/credentials: [default], then "
                "aws_access_key_id = ... and aws_secret_access_key = ..."
            ) from None


def _of_boto3() -> Callable[[], Credentials]:
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        found = botocore.session.get_session().get_credentials()
    except BotoCoreError as error:
        raise BadConfiguration(f"credentials: {error}") from error
    if found is None:
        raise PermissionDenied(
            "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where the process that uses them "
            "is started (a mount keeps those it began with), write ~/.aws/credentials, or name a file with "
            "credentials_file=; for a public bucket: anonymous=yes"
        )

    def read() -> Credentials:
        try:
            frozen = found.get_frozen_credentials()
        except BotoCoreError as error:
            raise PermissionDenied(f"credentials: {error}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    return read
