"""Types of fields that requests and responses share, each with its bounds."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from volgate.dto.validation import SNAPSHOT_ID, VOLUME_ID

_LARGEST: Final = 2**63 - 1
_ABSOLUTE: Final = r"^/[^\x00]*$"
_RELATIVE: Final = r"^([^/\x00][^\x00]*)?$"
_SOURCE: Final = r"^(/|[a-z][a-z0-9+.-]*://)[^\x00]*$"
_NO_NUL: Final = r"^[^\x00]*$"
_TASK_ID: Final = r"^[0-9a-f]{16}$"
_EVENT_CURSOR: Final = r"^[0-9]{1,12}-[0-9]{1,12}$"
_CURSOR: Final = r"^[A-Za-z0-9_-]+$"
_VOLUME_ID: Final = f"^{VOLUME_ID.pattern}$"
_SNAPSHOT_ID: Final = f"^{SNAPSHOT_ID.pattern}$"

IN_WORDS: Final = {
    _ABSOLUTE: "a path here is absolute: it begins with a slash, and has no NUL in it",
    _RELATIVE: "a path is relative to the volume's root, without a leading slash or a NUL; leave it out for the root",
    _SOURCE: "a source is an absolute directory, or a URL such as s3://bucket/prefix",
    _NO_NUL: "it has no NUL in it",
    _TASK_ID: "a task's id is 16 digits of 0-9 a-f, as 'operation_id' has them",
    _EVENT_CURSOR: "an event's cursor is two numbers such as 1-0, as 'cursor' and 'next_after' have it",
    _CURSOR: "a cursor is the 'next_cursor' of the page before, as it is",
    _VOLUME_ID: "a volume's id is 1 to 63 of a-z 0-9 . _ -, first a-z or 0-9",
    _SNAPSHOT_ID: "a snapshot's id is 1 to 63 of A-Z a-z 0-9 . _ -, first a letter or digit",
}
"""What each pattern asks for, said to those whose text does not match."""


class Model(BaseModel):
    """Base of all: what is not declared is refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _without_dots(text: str) -> str:
    if ".." in PurePosixPath(text).parts:
        raise ValueError("no '..' in it")
    return text


VolumeId = Annotated[str, Field(pattern=_VOLUME_ID, max_length=63, examples=["projects"])]
SnapshotId = Annotated[str, Field(pattern=_SNAPSHOT_ID, max_length=63, examples=["before-upgrade"])]
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
"""Bytes or inodes."""
Seconds = Annotated[float, Field(ge=0)]
AbsolutePath = Annotated[
    str, Field(pattern=_ABSOLUTE, max_length=4095, examples=["/mnt/projects"]), AfterValidator(_without_dots)
]
RelativePath = Annotated[
    str,
    Field(pattern=_RELATIVE, max_length=4095, description="From the root of the volume; '' is all of it."),
    AfterValidator(_without_dots),
]
SourceText = Annotated[
    str,
    Field(
        pattern=_SOURCE,
        max_length=4095,
        description="An absolute directory, or a URL such as s3://bucket/prefix.",
        examples=["/srv/projects"],
    ),
]
Options = Annotated[
    str, Field(pattern=_NO_NUL, max_length=4095, description="Mount options, as after 'volgate mount -o'.")
]
MetadataKey = Annotated[str, Field(pattern=_NO_NUL, min_length=1, max_length=255)]
MetadataValue = Annotated[str, Field(pattern=_NO_NUL, max_length=4095)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=64)]
Policy = Annotated[str, Field(min_length=1, max_length=255, examples=["hourly=24,daily=7"])]
TaskId = Annotated[str, Field(pattern=_TASK_ID, examples=["3f2a9c0d11e84b7a"])]
EventCursor = Annotated[str, Field(pattern=_EVENT_CURSOR, examples=["1-0"])]
Cursor = Annotated[str, Field(pattern=_CURSOR, max_length=8192, description="'next_cursor' of the page before.")]
