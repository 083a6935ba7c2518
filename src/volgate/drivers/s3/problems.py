"""The only table between S3's error codes and the exceptions (S3 API Reference, "Error responses")."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

from volgate import errors
from volgate.drivers.s3.client import Response

_OF_CODE: Final[dict[str, type[errors.StorageException]]] = {
    "NoSuchKey": errors.NotFound,
    "NoSuchBucket": errors.NotFound,
    "NoSuchUpload": errors.NotFound,
    "PreconditionFailed": errors.Stale,
    "ConditionalRequestConflict": errors.Stale,
    "AccessDenied": errors.PermissionDenied,
    "InvalidAccessKeyId": errors.PermissionDenied,
    "XAdminUserNotFound": errors.PermissionDenied,
    "SignatureDoesNotMatch": errors.PermissionDenied,
    "ExpiredToken": errors.PermissionDenied,
    "RequestTimeTooSkewed": errors.PermissionDenied,
    "InvalidObjectState": errors.PermissionDenied,
    "KeyTooLongError": errors.NameTooLong,
    "EntityTooLarge": errors.FileTooLarge,
    "MetadataTooLarge": errors.AttributeTooLarge,
    "QuotaExceeded": errors.NoSpace,
    "BucketQuotaExceeded": errors.NoSpace,
    "InvalidBucketName": errors.BadConfiguration,
    "AuthorizationHeaderMalformed": errors.BadConfiguration,
    "PermanentRedirect": errors.BadConfiguration,
    "NotImplemented": errors.Unsupported,
    "ObjectParentIsFile": errors.Unavailable,
    "SlowDown": errors.Unavailable,
    "InternalError": errors.Unavailable,
    "ServiceUnavailable": errors.Unavailable,
    "RequestTimeout": errors.TimedOut,
    "BadDigest": errors.InputOutput,
    "XAmzContentChecksumMismatch": errors.InputOutput,
}
_OF_STATUS: Final[dict[int, type[errors.StorageException]]] = {
    301: errors.BadConfiguration,
    304: errors.Stale,
    307: errors.BadConfiguration,
    400: errors.InvalidArgument,
    401: errors.PermissionDenied,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    405: errors.Unsupported,
    409: errors.Stale,
    412: errors.Stale,
    416: errors.InvalidArgument,
    429: errors.Unavailable,
    501: errors.Unsupported,
    507: errors.NoSpace,
}
_HINTS: Final[dict[str, str]] = {
    "ObjectParentIsFile": "the server keeps objects in a file system, and has a file where this needs a directory yet",
    "RequestTimeTooSkewed": "the clocks of this host and the server differ too much; set this host's by NTP",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "InvalidAccessKeyId": "the server does not know this access key",
    "XAdminUserNotFound": "the server does not know this access key",
    "ExpiredToken": "the session token is no longer valid; renew the credentials, no remount is needed",
    "InvalidObjectState": "the object is archived (Glacier); restore it first",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set region=",
    "PermanentRedirect": "the bucket lies in another region; set region= or endpoint_url=",
}


def find_error(response: Response) -> tuple[str, str]:
    """Return code and message of an error, also of one that came with status 200; "" and "" for any other answer."""
    if b"<Error" not in response.body[:200]:
        return "", ""
    try:
        root = ElementTree.fromstring(response.body)
    except ElementTree.ParseError:
        return "", ""
    return root.findtext(".//{*}Code") or "", root.findtext(".//{*}Message") or ""


def raise_for(response: Response, what: str) -> None:
    """Raise what an answer means; nothing happens where it is a success.

    Args:
        what: operation and key, for the message.
    """
    code, message = find_error(response)
    if response.status < 300 and not code:
        return
    class_ = _OF_CODE.get(code) or _OF_STATUS.get(response.status)
    if class_ is None:
        class_ = errors.Unavailable if response.status >= 500 else errors.InputOutput
    said = f"{what}: {code or f'status {response.status}'}"
    hint = _HINTS.get(code) or message.rstrip(".")
    raise class_(f"{said}: {hint}" if hint else said)
