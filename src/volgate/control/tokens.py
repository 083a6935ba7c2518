"""Opaque tokens for the API over TCP: kept as SHA-256 of 32 random bytes, in a file of mode 0600.

The file is read again when it was replaced, so that a token that was revoked lets nobody in any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import attrs

from volgate.control.roles import Grant, parse_grant
from volgate.control.secret_files import read_secret
from volgate.errors import AlreadyExists, BadConfiguration, InvalidArgument, NotFound, Unsupported
from volgate.errors.errno_map import from_oserror_at

PREFIX: Final = "vgt_"
"""Begins every token, so that those who look for leaked secrets find it."""
FORMAT_VERSION: Final = 1
_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


@attrs.frozen
class Token:
    """What is known of a token: not the token.

    Attributes:
        name: who uses it. digest: its SHA-256, hexadecimal. grants: what it may.
        created_at, expires_at: UNIX seconds.
    """

    name: str
    digest: str
    grants: tuple[Grant, ...]
    created_at: float
    expires_at: float


class TokenFile:
    """The tokens of this host.

    Args:
        path: of the file; where there is none there are no tokens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def load(self) -> tuple[Token, ...]:
        """Return all of them, expired ones too. Raises BadConfiguration: others may read the file, or it is damaged."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise from_oserror_at(error) from error
        seen = status.st_ino, status.st_mtime_ns, status.st_size
        if seen != self._seen:
            self._tokens = _parse(self._path, read_secret(self._path, "the file of tokens"))
            self._seen = seen
        return self._tokens

    def find(self, text: str) -> Token | None:
        """Return the token of a text, expired or not; None: it is none. Takes as long for any text."""
        digest, found = _digest(text), None
        for token in self.load():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def create(self, name: str, grants: tuple[Grant, ...], valid_s: float) -> str:
        """Make a token and return its text, which is kept nowhere. Raises AlreadyExists, InvalidArgument."""
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"'{name}' is no name of a token: 1 to 63 of a-z A-Z 0-9 . _ @ -")
        text = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        now = time.time()
        with self._changing() as tokens:
            if any(token.name == name for token in tokens):
                raise AlreadyExists(f"there is a token '{name}' already; revoke it, or choose another name")
            tokens.append(Token(name, _digest(text), grants, now, now + valid_s))
        return text

    def revoke(self, name: str) -> None:
        """Take a token away; it lets nobody in from now on. Raises NotFound."""
        with self._changing() as tokens:
            kept = [token for token in tokens if token.name != name]
            if len(kept) == len(tokens):
                raise NotFound(f"there is no token '{name}'; see 'volgate control token list'")
            tokens[:] = kept

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """Give the tokens to be changed, and replace the file by them, atomically and durably."""
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with _locked(draft) as file:
                try:
                    tokens = [*self.load()]
                    yield tokens
                    file.truncate(0)
                    file.write(_to_json(tokens))
                    file.flush()
                    os.fsync(file.fileno())
                    os.rename(draft, self._path)
                except BaseException:
                    draft.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise from_oserror_at(error) from error


@contextlib.contextmanager
def _locked(draft: Path) -> Iterator[IO[str]]:
    """Give a file that this process alone writes: who held it before has renamed or removed it."""
    while True:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                is_there = os.path.samestat(os.stat(draft), os.fstat(file.fileno()))
            except FileNotFoundError:
                is_there = False
            if is_there:
                yield file
                return


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _to_json(tokens: list[Token]) -> str:
    described: list[dict[str, Any]] = [
        {**attrs.asdict(token, recurse=False), "grants": [str(grant) for grant in token.grants]} for token in tokens
    ]
    return json.dumps({"format_version": FORMAT_VERSION, "tokens": described}, indent=1) + "\n"


def _parse(path: Path, content: bytes) -> tuple[Token, ...]:
    try:
        document = json.loads(content)
        if document["format_version"] > FORMAT_VERSION:
            raise Unsupported(f"{path} has a format that this version does not know: upgrade volgate")
        return tuple(
            Token(
                str(known["name"]),
                str(known["digest"]),
                tuple(parse_grant(text) for text in known["grants"]),
                float(known["created_at"]),
                float(known["expires_at"]),
            )
            for known in document["tokens"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadConfiguration(f"the file of tokens {path} is damaged: {error}") from error
