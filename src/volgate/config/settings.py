"""Which settings there are: section, key, type, default, meaning. The one place that knows; ``loading`` fills them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from volgate.core.addresses import parse_address
from volgate.core.sizes import parse_seconds


@attrs.frozen
class Setting:
    """One key of the configuration.

    Attributes:
        section, key: ``[section] key = ...``; in the environment ``VOLGATE_SECTION__KEY``.
        default: what holds where nobody set it.
        parse: from text (environment) or a TOML value to the value. Raises ValueError with what was expected.
        help: one line for people.
    """

    section: str
    key: str
    default: Any
    parse: Callable[[Any], Any]
    help: str

    @property
    def name(self) -> str:
        """``section.key``."""
        return f"{self.section}.{self.key}"


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is no duration such as 60, '1.5s', '10min'")  # noqa: TRY004 - to its reader a value
    return parse_seconds(value)


def _text(meaning: str) -> Callable[[Any], str | None]:
    def parse(value: Any) -> str | None:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no {meaning}")  # noqa: TRY004 - to its reader a value
        return value or None

    return parse


def _lines(value: Any) -> tuple[str, ...]:
    """Return the texts of a list, or of one text in which blanks part them."""
    lines = value.split() if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"{value!r} is no list of texts")
    return tuple(lines)


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
        return str(value)

    return parse


SETTINGS: Final = (
    Setting("mount", "attr_timeout", 60.0, _seconds, "how long until changes made behind a mount are seen"),
    Setting("mount", "stop_deadline", 30.0, _seconds, "how long a stop waits for open files before it detaches"),
    Setting("mount", "request_deadline", 60.0, _seconds, "when a request to storage that hangs is given up"),
    Setting(
        "mount",
        "worker",
        None,
        _text("user's name"),
        "the user of a worker that serves without root's rights; empty = none",
    ),
    Setting("s3", "endpoint_url", None, _text("URL"), "the S3 server, https://HOST[:PORT]; empty = Amazon's"),
    Setting("s3", "region", None, _text("region"), "the region in signatures; empty = AWS_REGION, or us-east-1"),
    Setting(
        "s3", "addressing", "auto", _one_of("auto", "path", "virtual"), "HOST/BUCKET, BUCKET.HOST, or the usual one"
    ),
    Setting("s3", "credentials_file", None, _text("path"), "written as ~/.aws/credentials, mode 600; empty = as boto3"),
    Setting("s3", "proxy", None, _text("URL"), "http://HOST:PORT to ask through; empty = HTTPS_PROXY, NO_PROXY"),
    Setting("s3", "ca_bundle", None, _text("path"), "PEM file of authorities to trust in place of the system's"),
    Setting("log", "format", "text", _one_of("text", "json"), "text (key=value) or json, one object a line"),
    Setting("log", "level", "info", _one_of("debug", "info", "warning", "error"), "the least level that is logged"),
    Setting(
        "control", "socket", None, _text("path"), "the control daemon's socket; empty = control.sock beside the mounts'"
    ),
    Setting(
        "control", "group", None, _text("group's name"), "the group that may connect to it; empty = the daemon's own"
    ),
    Setting("control", "roles", (), _lines, 'what users may: ["USER=ROLE:VOLUME,..."]; reader, owner, admin; * = all'),
    Setting(
        "control", "listen", None, parse_address, "HOST:PORT that serves the API over TLS; empty = its socket only"
    ),
    Setting("control", "tls_certificate", None, _text("path"), "PEM file of its certificate, with those in between"),
    Setting("control", "tls_key", None, _text("path"), "PEM file of the certificate's key, mode 600"),
    Setting(
        "control", "tokens", None, _text("path"), "the file that 'volgate control token' keeps; empty = beside this"
    ),
    Setting("control", "jwt_key", None, _text("path"), "public key (PEM), or secret, of signed tokens; empty = none"),
    Setting(
        "control",
        "jwt_algorithm",
        "EdDSA",
        _one_of("EdDSA", "ES256", "RS256", "HS256"),
        "how they are signed: EdDSA, ES256, RS256 or HS256",
    ),
    Setting("control", "jwt_audience", None, _text("name"), "whom they have to be for ('aud')"),
    Setting("control", "jwt_issuer", None, _text("name"), "who has to have made them ('iss'); empty = anybody"),
    Setting("metrics", "listen", None, parse_address, "HOST:PORT that serves /metrics over TCP; empty = socket only"),
)
"""All settings, in the order in which ``volgate config show`` prints them."""
