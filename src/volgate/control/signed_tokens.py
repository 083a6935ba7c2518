"""Signed tokens (JWT, RFC 7519) for the API over TCP, made by somebody else who has the key.

One algorithm, chosen with the key and never by the token (RFC 8725, 3.1). A token says whom it is for (``aud``), who he
is (``sub``), what he may (``roles``: ["owner:projects", ...]), and when it ends (``exp``), which is soon.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import jwt

from volgate.control.problems import Refusal
from volgate.control.roles import Principal, parse_grant
from volgate.control.secret_files import read_secret
from volgate.errors import BadConfiguration

ALGORITHMS: Final = ("EdDSA", "ES256", "RS256", "HS256")
MAX_AHEAD_S: Final = 15 * 60.0
_LEAST_SECRET_BYTES: Final = 32
_MAX_BYTES: Final = 8192
_MAX_ROLES: Final = 100
_MAX_SUBJECT: Final = 255


class SignedTokens:
    """Checks signed tokens.

    Args:
        key_file: a public key in PEM, or for HS256 a secret of 32 bytes or more, mode 0600.
        algorithm: one of ``ALGORITHMS``. audience: whom tokens have to be for.
        issuer: who has to have made them; None = whoever has the key.

    Raises:
        BadConfiguration: the key is none for this algorithm, or no audience is given.
    """

    def __init__(self, key_file: Path, algorithm: str, audience: str | None, issuer: str | None) -> None:
        if audience is None:
            raise BadConfiguration("[control] jwt_audience is needed beside jwt_key: whom tokens have to be for")
        self._algorithm = algorithm
        self._audience = audience
        self._issuer = issuer
        self._key = _read_key(key_file, algorithm)

    def check(self, text: str) -> Principal:
        """Return whom a token is for. Raises Refusal: it is none, is not for us, or not any more."""
        if len(text) > _MAX_BYTES:
            raise _refused("it is too long")
        try:
            claims = jwt.decode(
                text,
                self._key,
                algorithms=[self._algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp", "aud", "sub"]},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _refused(str(error)) from error
        if int(claims["exp"]) > time.time() + MAX_AHEAD_S:
            raise _refused(f"it is valid for longer than {MAX_AHEAD_S / 60:g} minutes")
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= _MAX_SUBJECT or not subject.isprintable():
            raise _refused(f"its 'sub' is no text of 1 to {_MAX_SUBJECT} printable characters")
        roles = claims.get("roles")
        if not isinstance(roles, list) or len(roles) > _MAX_ROLES or not all(isinstance(role, str) for role in roles):
            raise _refused("its 'roles' are no list of texts")
        try:
            return Principal(f"jwt:{subject}", tuple(parse_grant(role) for role in roles))
        except ValueError as error:
            raise _refused(str(error)) from error


def _read_key(path: Path, algorithm: str) -> Any:
    if algorithm == "HS256":
        secret = read_secret(path, "the key of signed tokens").strip()
        if b"-----BEGIN" in secret or len(secret) < _LEAST_SECRET_BYTES:
            raise BadConfiguration(f"{path} is no secret of {_LEAST_SECRET_BYTES} bytes or more for HS256")
        return secret
    try:
        content = path.read_bytes()
        key = jwt.get_algorithm_by_name(algorithm).prepare_key(content)
    except OSError as error:
        raise BadConfiguration(f"the key of signed tokens {path} cannot be read: {error.strerror}") from error
    except (jwt.InvalidKeyError, ValueError, TypeError) as error:
        raise BadConfiguration(f"{path} is no public key in PEM for {algorithm}: {error}") from error
    return getattr(key, "public_key", lambda: key)()


def _refused(why: str) -> Refusal:
    return Refusal("unauthenticated", f"the token is refused: {why}", headers=(("www-authenticate", "Bearer"),))
