"""What a bucket shall hold and does not hold yet: the entries of the cache's journal."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from volgate.core.object_metadata import StoredAttributes
from volgate.core.object_version import ObjectVersion


@attrs.frozen
class PendingContent:
    """The object that a key shall hold.

    Attributes:
        ino: inode number of the file.
        attributes: what the object's metadata shall say.
        size: bytes of the file.
        base: the bucket's version whose bytes are kept where not dirty; under another key after a rename. None: no
            bytes are kept.
        base_end: bytes of base that still count, [0, base_end).
        dirty: half-open ranges that lie in the staging file, sorted, disjoint.
        staging: name of the staging file; None where there is none.
        inline: the whole content, instead of base, dirty and staging; None where it is not inline.
        keeps_metadata: the metadata of base is unchanged, so a plain copy will do.
        extra_metadata: what other tools wrote and we keep.
        content_type: of the object.
    """

    ino: int
    attributes: StoredAttributes
    size: int
    base: ObjectVersion | None
    base_end: int
    dirty: tuple[tuple[int, int], ...]
    staging: str | None
    inline: bytes | None
    keeps_metadata: bool
    extra_metadata: Mapping[str, str]
    content_type: str


@attrs.frozen
class PendingEntry:
    """A change of one key that the bucket has not taken yet.

    Attributes:
        key: name of the object.
        remote_etag: what the bucket is believed to hold under key; None: nothing.
        content: None: delete the object.
        since: UNIX seconds of the first change.
        commit_id: the unique id of the upload under way; "" where none is.
        refused: why it lies in quarantine; "" where it does not.
    """

    key: str
    remote_etag: str | None
    content: PendingContent | None
    since: float
    commit_id: str
    refused: str


@attrs.frozen
class DoneEntry:
    """Nothing is pending under key any more."""

    key: str
