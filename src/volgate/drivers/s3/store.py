"""``S3ObjectStore``: the ObjectStore port on S3's operations."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from awscrt import checksums

from volgate.drivers.object_store import (
    COMMIT_KEY,
    IDENTITY_KEY,
    MAX_KEY_BYTES,
    ListedObject,
    ListPage,
    ObjectInfo,
    ObjectReader,
    ObjectStore,
    PendingUpload,
    StoreCapabilities,
    UploadedPart,
)
from volgate.drivers.s3.client import Response, S3HttpClient
from volgate.drivers.s3.credentials import find_credentials
from volgate.drivers.s3.preflight import check_trust, find_capabilities
from volgate.drivers.s3.problems import raise_for
from volgate.errors import (
    AlreadyExists,
    InputOutput,
    InvalidArgument,
    NameTooLong,
    NotFound,
    Stale,
    StorageException,
    Unavailable,
)

if TYPE_CHECKING:
    from volgate.drivers.s3.credentials import Credentials
    from volgate.drivers.s3.settings import S3Settings

_METADATA: Final = "x-amz-meta-"
_CHECKSUM: Final = "x-amz-checksum-crc64nvme"


class S3ObjectStore(ObjectStore):
    """See the module. Keys are relative to the volume's prefix."""

    backend_type = "s3"

    def __init__(self, settings: S3Settings) -> None:
        """Look for the credentials; nothing is asked yet. Raises what ``find_credentials`` does."""
        self._settings = settings
        self.max_key_bytes = MAX_KEY_BYTES - len(settings.prefix.encode())
        self._credentials: Callable[[], Credentials] | None = find_credentials(settings)
        self._client = S3HttpClient(settings, self._credentials)
        self._capabilities = StoreCapabilities()
        self._making = _headers_of_new_objects(settings)
        self._commits: dict[str, str] = {}
        """What the uploads that were begun here name themselves."""
        self.clock_skew_s = 0.0
        """How far this host's clock was ahead of the server's at ``open``, to a second or two."""
        self.quotes_etags = True
        """Whether this server wants the etag of a condition in quotes (RFC 9110 §8.8.3); Ceph's wants none."""

    @classmethod
    def from_source(cls, source: str, options: Mapping[str, str]) -> S3ObjectStore:
        """Return the store of ``s3://BUCKET/PREFIX``. Raises what ``S3Settings.from_source`` does."""
        from volgate.drivers.s3.settings import S3Settings

        return cls(S3Settings.from_source(source, options))

    @property
    def capabilities(self) -> StoreCapabilities:
        """See ObjectStore; all are False on a store opened for reading."""
        return self._capabilities

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were made, by S3's name of the operation."""
        return self._client.requests

    async def open(self, *, writable: bool) -> None:
        """See ObjectStore."""
        bucket = self._settings.bucket
        await check_trust(self._settings)
        try:
            query = _list_query(self._settings.prefix, limit=1)
            response = await self._client.request("ListObjectsV2", "GET", query=query)
        except Unavailable as error:
            if self._settings.endpoint_url is not None:
                raise
            raise Unavailable(f"{error} Where the bucket is not Amazon's, say --endpoint-url") from error
        try:
            raise_for(response, f"listing bucket '{bucket}'")
        except NotFound as error:
            host = self._settings.host
            raise NotFound(f"there is no bucket '{bucket}' at {host}; make it, or mend the name") from error
        if "date" in response.headers:
            self.clock_skew_s = time.time() - _http_date(response.headers["date"])
        _parse(response)
        if writable:
            await self._check_not_within_another()
        self.keeps_versions = await self._find_versioning()
        if writable:
            self._capabilities = await find_capabilities(self)

    async def _find_versioning(self) -> bool | None:
        """Ask whether the bucket keeps versions; None where the server has none, or the credentials may not ask."""
        response = await self._client.request("GetBucketVersioning", "GET", query={"versioning": ""})
        if response.status != HTTPStatus.OK:
            return None
        return _parse(response).findtext("{*}Status") == "Enabled"

    async def _check_not_within_another(self) -> None:
        """Refuse a prefix that lies within a volume's: what is written here would pass that volume's limit.

        Whoever makes a volume around one that is there does not take it from its users: that is told of the outer one.

        Raises:
            InvalidArgument: it does; names the other. Where the credentials may not look, nothing is found.
        """
        place = f"s3://{self._settings.bucket}/"
        here = self._settings.prefix
        *parts, _ = here.split("/")
        for depth in range(len(parts)):
            above = "".join(f"{part}/" for part in parts[:depth])
            response = await self._client.request("HeadObject", "HEAD", above + IDENTITY_KEY)
            if response.status == HTTPStatus.OK and await self._made_at(above) <= await self._made_at(here):
                raise InvalidArgument(
                    f"{place}{here.rstrip('/')} lies in the volume {place}{above.rstrip('/')}, whose "
                    "limit it would pass: mount that, or choose a prefix outside; where that volume is not wanted, "
                    f"unmount it and delete the objects below {place}{above}.volgate/"
                )

    async def _made_at(self, prefix: str) -> float:
        """Return when the volume at a prefix of the bucket was made, UNIX seconds; infinity where none says so."""
        response = await self._client.request("GetObject", "GET", prefix + IDENTITY_KEY)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if response.status == HTTPStatus.OK:
                return float(json.loads(response.body)["created_at"])
        return math.inf

    async def head(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        response = await self._send("HeadObject", "HEAD", key)
        return _as_info(key, response.headers)

    async def list_page(
        self, prefix: str = "", *, delimiter: str = "", page: str | None = None, limit: int = 1000
    ) -> ListPage:
        """See ObjectStore."""
        query = _list_query(self._full(prefix, check=False), delimiter, page, limit)
        response = await self._client.request("ListObjectsV2", "GET", query=query)
        raise_for(response, f"listing {prefix!r}")
        root = _parse(response)
        decode = unquote if root.findtext("{*}EncodingType") == "url" else str
        objects = tuple(
            ListedObject(
                self._relative(decode(_text(entry, "Key"))),
                _integer(_text(entry, "Size")),
                _bare(_text(entry, "ETag")),
                _seconds(_text(entry, "LastModified")),
                entry.findtext("{*}StorageClass") or "",
            )
            for entry in root.findall("{*}Contents")
        )
        prefixes = tuple(self._relative(decode(_text(entry, "Prefix"))) for entry in root.findall("{*}CommonPrefixes"))
        more = root.findtext("{*}IsTruncated") == "true"
        next_page = root.findtext("{*}NextContinuationToken") if more else None
        if more and not next_page:
            raise InputOutput(f"listing {prefix!r}: the server breaks it off without a way to go on")
        if more and next_page == page:
            raise InputOutput(f"listing {prefix!r}: the server says that the same page comes again")
        return ListPage(objects, prefixes, next_page)

    async def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        """See ObjectStore."""
        if length <= 0:
            return b""
        response = await self._get(key, offset, length, self._condition("if-match", etag), {})
        if response.status == 416:
            if etag is not None and (await self.head(key)).etag != etag:
                raise Stale(f"{key} was changed")
            return b""
        return _body_of(response, key, offset, length)

    async def _get(
        self, key: str, offset: int, length: int, condition: Mapping[str, str], query: Mapping[str, str]
    ) -> Response:
        headers = {"range": f"bytes={offset}-{offset + length - 1}", **condition}
        return await self._client.request(
            "GetObject", "GET", self._full(key), query=query, headers=headers, expected_bytes=length
        )

    async def find_version(self, key: str, etag: str, modified_at: int) -> str | None:
        """See ObjectStore; needs s3:ListBucketVersions, without which there are none."""
        if not self.keeps_versions:
            return None
        found = None
        marker: dict[str, str] = {}
        while True:
            query = {"versions": "", "encoding-type": "url", "prefix": self._full(key), **marker}
            response = await self._client.request("ListObjectVersions", "GET", query=query)
            if response.status == HTTPStatus.FORBIDDEN:
                return None
            raise_for(response, f"listing the versions of {key!r}")
            root = _parse(response)
            decode = unquote if root.findtext("{*}EncodingType") == "url" else str
            for entry in root.findall("{*}Version"):
                if decode(_text(entry, "Key")) != self._full(key):
                    return found  # those of longer keys follow
                if _bare(_text(entry, "ETag")) == etag:
                    found = _text(entry, "VersionId")
                    if _seconds(_text(entry, "LastModified")) == modified_at:
                        return found
            if root.findtext("{*}IsTruncated") != "true":
                return found
            marker = {
                "key-marker": decode(_text(root, "NextKeyMarker")),
                "version-id-marker": _text(root, "NextVersionIdMarker"),
            }

    async def get_version(self, key: str, version_id: str, offset: int, length: int) -> bytes:
        """See ObjectStore; needs s3:GetObjectVersion."""
        response = await self._get(key, offset, length, {}, {"versionId": version_id})
        return b"" if response.status == 416 else _body_of(response, key, offset, length)

    async def head_version(self, key: str, version_id: str) -> ObjectInfo:
        """See ObjectStore; needs s3:GetObjectVersion."""
        response = await self._send("HeadObject", "HEAD", key, query={"versionId": version_id})
        return _as_info(key, response.headers)

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """See ObjectStore."""
        commit = (metadata or {}).get(COMMIT_KEY) or uuid.uuid4().hex
        headers = {
            **_describe({**(metadata or {}), COMMIT_KEY: commit}, content_type),
            **self._making,
            _CHECKSUM: checksum_of(body),
            **({"if-none-match": "*"} if if_absent else {}),
            **self._condition("if-match", if_match),
        }
        try:
            response = await self._send("PutObject", "PUT", key, headers=headers, body=body)
        except (Stale, NotFound) as error:
            if not if_absent and if_match is None:
                raise
            return await self._look_who_won(key, commit, error, if_absent=if_absent)
        return _bare(response.headers.get("etag", ""))

    async def _look_who_won(self, key: str, commit: str, error: StorageException, *, if_absent: bool) -> str:
        """Return our etag where the condition failed since an earlier try of ours was done, its reply lost."""
        try:
            found = await self.head(key)
        except NotFound:
            raise Stale(f"{key} was deleted") from error
        if found.metadata.get(COMMIT_KEY) == commit:
            return found.etag
        if if_absent:
            raise AlreadyExists(f"{key} exists") from error
        raise Stale(f"{key} was changed") from error

    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        """See ObjectStore."""
        try:
            await self._send("DeleteObject", "DELETE", key, headers=self._condition("if-match", if_match))
        except NotFound:
            return

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_etag: str | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        of: ObjectReader | None = None,
        size: int = 0,
    ) -> str:
        """See ObjectStore."""
        headers = {**self._source(of, source, source_etag), **self._making}
        if metadata is not None:
            headers |= {"x-amz-metadata-directive": "REPLACE", **_describe(metadata, content_type)}
        response = await self._send("CopyObject", "PUT", target, headers=headers, body=b"", moved_bytes=size)
        return _bare(_text(_parse(response), "ETag"))

    async def begin_upload(self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str = "") -> str:
        """See ObjectStore."""
        commit = (metadata or {}).get(COMMIT_KEY) or uuid.uuid4().hex
        headers = {
            **_describe({**(metadata or {}), COMMIT_KEY: commit}, content_type),
            **self._making,
            "x-amz-checksum-algorithm": "CRC64NVME",
            "x-amz-checksum-type": "FULL_OBJECT",
        }
        response = await self._send(
            "CreateMultipartUpload", "POST", key, query={"uploads": ""}, headers=headers, body=b""
        )
        upload_id = _text(_parse(response), "UploadId")
        self._commits[upload_id] = commit
        return upload_id

    async def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        """See ObjectStore."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        checksum = checksum_of(body)
        response = await self._send("UploadPart", "PUT", key, query=query, headers={_CHECKSUM: checksum}, body=body)
        return UploadedPart(number, _bare(response.headers.get("etag", "")), len(body), checksum)

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: str, offset: int, length: int, *,
        source_etag: str | None, of: ObjectReader | None = None,
    ) -> UploadedPart:  # fmt: skip
        """See ObjectStore."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        headers = {
            **self._source(of, source, source_etag),
            "x-amz-copy-source-range": f"bytes={offset}-{offset + length - 1}",
        }
        response = await self._send(
            "UploadPartCopy", "PUT", key, query=query, headers=headers, body=b"", moved_bytes=length
        )
        result = _parse(response)
        return UploadedPart(number, _bare(_text(result, "ETag")), length, result.findtext("{*}ChecksumCRC64NVME") or "")

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[UploadedPart],
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """See ObjectStore."""
        document = ElementTree.Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
        for part in sorted(parts, key=lambda part: part.number):
            entry = ElementTree.SubElement(document, "Part")
            ElementTree.SubElement(entry, "PartNumber").text = str(part.number)
            ElementTree.SubElement(entry, "ETag").text = f'"{part.etag}"'
            if part.checksum:
                ElementTree.SubElement(entry, "ChecksumCRC64NVME").text = part.checksum
        try:
            response = await self._send(
                "CompleteMultipartUpload",
                "POST",
                key,
                query={"uploadId": upload_id},
                headers={
                    **({"if-none-match": "*"} if if_absent else {}),
                    **self._condition("if-match", if_match),
                },
                body=ElementTree.tostring(document),
            )
        except Stale as error:
            if if_absent:
                raise AlreadyExists(f"{key} exists") from error
            raise
        except NotFound as error:
            try:
                return await self._find_completed(key, upload_id)
            except NotFound:
                if if_match is None:
                    raise
                raise Stale(f"{key} was deleted") from error
        self._commits.pop(upload_id, None)
        etag = _bare(_parse(response).findtext("{*}ETag") or "")
        return etag or (await self.head(key)).etag  # Ceph's RGW leaves it empty

    async def _find_completed(self, key: str, upload_id: str) -> str:
        """Return the etag of an upload that is gone since an earlier try completed it, its reply lost."""
        found = await self.head(key)
        if found.metadata.get(COMMIT_KEY, "") != self._commits.get(upload_id):
            raise NotFound(f"no upload {upload_id} of {key}")
        del self._commits[upload_id]
        return found.etag

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """See ObjectStore."""
        self._commits.pop(upload_id, None)
        try:
            await self._send("AbortMultipartUpload", "DELETE", key, query={"uploadId": upload_id})
        except NotFound:
            return

    async def list_uploads(self, prefix: str = "") -> list[PendingUpload]:
        """See ObjectStore."""
        found: list[PendingUpload] = []
        markers: dict[str, str] = {}
        while True:
            query = {"uploads": "", "prefix": self._full(prefix, check=False), "encoding-type": "url", **markers}
            response = await self._client.request("ListMultipartUploads", "GET", query=query)
            raise_for(response, f"listing uploads below {prefix!r}")
            root = _parse(response)
            decode = unquote if root.findtext("{*}EncodingType") == "url" else str
            found += [
                PendingUpload(
                    self._relative(decode(_text(entry, "Key"))),
                    _text(entry, "UploadId"),
                    _seconds(_text(entry, "Initiated")),
                )
                for entry in root.findall("{*}Upload")
            ]
            before, markers = (
                markers,
                {
                    "key-marker": decode(root.findtext("{*}NextKeyMarker") or ""),
                    "upload-id-marker": root.findtext("{*}NextUploadIdMarker") or "",
                },
            )
            if root.findtext("{*}IsTruncated") != "true" or markers == before:
                return found

    async def close(self) -> None:
        """See ObjectStore."""
        self._client.close()

    async def heeds_checksums(self, key: str) -> bool:
        """Return whether the server refuses an object that does not fit its checksum. Overwrites the object if not."""
        try:
            await self._send("PutObject", "PUT", key, headers={_CHECKSUM: checksum_of(b"this")}, body=b"that")
        except (InputOutput, InvalidArgument):
            return True
        return False

    # -- requests -----------------------------------------------------------------------------------------------

    async def _send(
        self,
        operation: str,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        moved_bytes: int = 0,
    ) -> Response:
        response = await self._client.request(
            operation, method, self._full(key), query=query, headers=headers, body=body, moved_bytes=moved_bytes
        )
        raise_for(response, f"{operation} {key!r}")
        return response

    def _full(self, key: str, *, check: bool = True) -> str:
        full = self._settings.prefix + key
        try:
            length = len(full.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"the key {key!r} is no UTF-8, which S3 wants") from error
        if check and not 0 < length <= MAX_KEY_BYTES:
            raise NameTooLong(f"the key {key!r} has more than {MAX_KEY_BYTES} bytes, or none")
        return full

    def _relative(self, full: str) -> str:
        if not full.startswith(self._settings.prefix):
            raise InputOutput(f"the server lists {full!r}, which was not asked for")
        return full[len(self._settings.prefix) :]

    def _condition(self, header: str, etag: str | None) -> dict[str, str]:
        if etag is None:
            return {}
        return {header: f'"{etag}"' if self.quotes_etags else etag}

    def can_copy_of(self, other: ObjectReader) -> bool:
        """See ObjectStore: of any bucket of the same server."""
        return isinstance(other, S3ObjectStore) and other._settings.host == self._settings.host

    def _source(self, other: ObjectReader | None, source: str, etag: str | None) -> dict[str, str]:
        store = other or self
        assert isinstance(store, S3ObjectStore)
        path = quote(f"{store._settings.bucket}/{store._full(source)}", safe="/-._~")
        return {"x-amz-copy-source": f"/{path}", **self._condition("x-amz-copy-source-if-match", etag)}


def checksum_of(body: bytes) -> str:
    """Return CRC-64/NVME of a body as S3 writes it in a header."""
    return base64.b64encode(checksums.crc64nvme(body).to_bytes(8, "big")).decode()


def _headers_of_new_objects(settings: S3Settings) -> dict[str, str]:
    wanted = {
        "x-amz-storage-class": settings.storage_class,
        "x-amz-server-side-encryption": settings.encryption,
        "x-amz-server-side-encryption-aws-kms-key-id": settings.kms_key,
    }
    return {name: value for name, value in wanted.items() if value}


def _describe(metadata: Mapping[str, str], content_type: str) -> dict[str, str]:
    for name, value in (*metadata.items(), ("content-type", content_type)):
        if not (name + value).isascii() or not (name + value).isprintable() or name != name.lower():
            raise InvalidArgument(f"metadata {name!r}: only printable ASCII, and keys in lower case")
        if value != value.strip():
            raise InvalidArgument(f"metadata {name!r}: HTTP would take the spaces round its value away")
    headers = {_METADATA + name: value for name, value in metadata.items()}
    return {**headers, "content-type": content_type} if content_type else headers


def _body_of(response: Response, key: str, offset: int, length: int) -> bytes:
    """Return the range that was asked for. Raises what the server refused it with."""
    raise_for(response, f"reading {key!r}")
    body = response.body if response.status == 206 else response.body[offset : offset + length]
    if len(body) > length:
        raise InputOutput(f"reading {key!r}: the server sent more than it was asked for")
    return body


def _as_info(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(
        key,
        _integer(headers.get("content-length", "0")),
        _bare(headers.get("etag", "")),
        int(_http_date(headers["last-modified"])) if "last-modified" in headers else 0,
        headers.get("x-amz-storage-class", ""),
        headers.get("content-type", ""),
        {name.removeprefix(_METADATA): value for name, value in headers.items() if name.startswith(_METADATA)},
    )


def _list_query(prefix: str, delimiter: str = "", page: str | None = None, limit: int = 1000) -> dict[str, str]:
    query = {"list-type": "2", "encoding-type": "url", "max-keys": str(limit), "prefix": prefix}
    if delimiter:
        query["delimiter"] = delimiter
    if page is not None:
        query["continuation-token"] = page
    return query


def _parse(response: Response) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(response.body)
    except ElementTree.ParseError as error:
        raise InputOutput("the server does not speak S3: its answer is no XML") from error


def _text(element: ElementTree.Element, name: str) -> str:
    found = element.findtext(f"{{*}}{name}")
    if found is None:
        raise InputOutput(f"the server's answer has no {name}")
    return found


def _bare(etag: str) -> str:
    return etag.strip('"')


def _integer(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InputOutput(f"the server's answer has {text!r} where a number belongs")
    return int(text)


def _seconds(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError as error:
        raise InputOutput(f"the server's answer has {text!r} where a time belongs") from error


def _http_date(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError as error:
        raise InputOutput(f"the server's answer has {text!r} where a date belongs") from error
