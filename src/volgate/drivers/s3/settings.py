"""Which bucket, at which server, spoken to how: everything that ``s3://BUCKET/PREFIX`` and options say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import attrs

from volgate.core.sizes import parse_size
from volgate.errors import BadConfiguration

_BUCKET: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,253}[a-zA-Z0-9]")
_ADDRESSINGS: Final = ("auto", "path", "virtual")
_ENCRYPTIONS: Final = ("AES256", "aws:kms")


@attrs.frozen
class S3Settings:
    """Where the objects lie and how they are asked for.

    Attributes:
        bucket: its name.
        prefix: what all keys of the volume begin with: "" or with a slash at its end.
        endpoint_url: the server, ``https://host[:port]``; None = Amazon's of the region.
        region: goes into signatures; servers other than Amazon's mostly take any.
        addressing: ``path`` (host/bucket/key), ``virtual`` (bucket.host/key), or ``auto``: virtual at Amazon's.
        credentials_file: of the form of ~/.aws/credentials; None = what boto3 finds.
        anonymous: sign nothing.
        ca_bundle: PEM file of authorities to trust in place of the system's.
        storage_class: of the objects that are made, as S3 names it; "" = the bucket's own choice.
        encryption: how the server encrypts them: "AES256" or "aws:kms"; "" = the bucket's own choice.
        kms_key: id of the key for "aws:kms"; "" = the account's.
        requester_pays: whoever asks agrees to pay for it.
        proxy: ``http://host:port`` to ask through; None = as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
        upload_limit, download_limit: bytes a second on average; None = as many as the net takes.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str = "us-east-1"
    addressing: str = "auto"
    credentials_file: Path | None = None
    anonymous: bool = False
    ca_bundle: Path | None = None
    storage_class: str = ""
    encryption: str = ""
    kms_key: str = ""
    requester_pays: bool = False
    proxy: str | None = None
    upload_limit: int | None = None
    download_limit: int | None = None

    @classmethod
    def from_source(cls, source: str, options: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> Self:
        """Return the settings of ``s3://BUCKET[/PREFIX]``.

        Args:
            options: by the names of the attributes above; what is absent is taken from the environment as boto3 takes
                it (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION, AWS_CA_BUNDLE).

        Raises:
            BadConfiguration: the URL, or an option, is none.
        """
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise BadConfiguration(
                f"'{source}' names no bucket (3 to 63 of a-z, 0-9, '.', '-'); write s3://BUCKET or s3://BUCKET/PREFIX"
            )
        endpoint_url = _first(options, ["endpoint_url"], environment, ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
        if endpoint_url is not None:
            _check_endpoint(endpoint_url)
        addressing = options.get("addressing", "auto")
        if addressing not in _ADDRESSINGS:
            raise BadConfiguration(f"addressing: '{addressing}' is none of {', '.join(_ADDRESSINGS)}")
        encryption = options.get("encryption", "")
        if encryption not in ("", *_ENCRYPTIONS):
            raise BadConfiguration(f"encryption: '{encryption}' is none of {', '.join(_ENCRYPTIONS)}")
        if options.get("kms_key") and encryption != "aws:kms":
            raise BadConfiguration("kms_key: says nothing without encryption=aws:kms")
        credentials_file = options.get("credentials_file")
        ca_bundle = _first(options, ["ca_bundle"], environment, ["AWS_CA_BUNDLE"])
        return cls(
            bucket=bucket,
            prefix=prefix.rstrip("/") + "/" if prefix.rstrip("/") else "",
            endpoint_url=endpoint_url,
            region=_first(options, ["region"], environment, ["AWS_REGION", "AWS_DEFAULT_REGION"]) or "us-east-1",
            addressing=addressing,
            credentials_file=Path(credentials_file) if credentials_file else None,
            anonymous=_is_on(options, "anonymous"),
            ca_bundle=Path(ca_bundle) if ca_bundle else None,
            storage_class=options.get("storage_class", ""),
            encryption=encryption,
            kms_key=options.get("kms_key", ""),
            requester_pays=_is_on(options, "requester_pays"),
            proxy=_proxy(options.get("proxy")),
            upload_limit=_rate(options, "upload_limit"),
            download_limit=_rate(options, "download_limit"),
        )

    @property
    def is_tls(self) -> bool:
        """Whether the server is asked over TLS."""
        return self.endpoint_url is None or self.endpoint_url.startswith("https://")

    @property
    def host(self) -> str:
        """Host, and port where one is given, of the Host header."""
        server = urlsplit(self.endpoint_url).netloc if self.endpoint_url else f"s3.{self.region}.amazonaws.com"
        return f"{self.bucket}.{server}" if self._is_virtual else server

    @property
    def bucket_path(self) -> str:
        """What the path of every request begins with: ``/bucket``, or "" where the host has it."""
        return "" if self._is_virtual else f"/{self.bucket}"

    @property
    def _is_virtual(self) -> bool:
        # A dot in a bucket's name does not match the server's wildcard certificate.
        at_amazon = self.endpoint_url is None and "." not in self.bucket
        return self.addressing == "virtual" or (self.addressing == "auto" and at_amazon)


def _is_on(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, "no") in ("", "yes", "true", "1")


def _proxy(url: str | None) -> str | None:
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise BadConfiguration(f"proxy '{url}': write it as http://HOST:PORT")
    if "@" in parts.netloc:
        raise BadConfiguration("proxy: a password does not belong into an option; set HTTPS_PROXY in the environment")
    return url


def _rate(options: Mapping[str, str], name: str) -> int | None:
    if not options.get(name):
        return None
    try:
        return parse_size(options[name])
    except ValueError as error:
        raise BadConfiguration(f"{name}: {error}; it is bytes a second") from error


def _first(
    options: Mapping[str, str], names: list[str], environment: Mapping[str, str], variables: list[str]
) -> str | None:
    found = [options[name] for name in names if options.get(name)] + [
        environment[name] for name in variables if environment.get(name)
    ]
    return found[0] if found else None


def _check_endpoint(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise BadConfiguration(f"endpoint '{url}': write it as https://HOST or http://HOST:PORT, nothing after it")
    if "@" in parts.netloc:
        raise BadConfiguration("endpoint: credentials do not belong into a URL; use a credentials file")
