"""Types of fields that requests and responses share, each with its bounds."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from volgate.dto.validation import SNAPSHOT_ID, VOLUME_ID

_LARGEST: Final = 2**63 - 1
_NO_NUL: Final = r"^[^\x00]*$"


class Model(BaseModel):
    """Base of all: what is not declared is refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _without_dots(text: str) -> str:
    if ".." in PurePosixPath(text).parts:
        raise ValueError("no '..' in it")
    return text


VolumeId = Annotated[str, Field(pattern=f"^{VOLUME_ID.pattern}$", max_length=63, examples=["projects"])]
SnapshotId = Annotated[str, Field(pattern=f"^{SNAPSHOT_ID.pattern}$", max_length=63, examples=["before-upgrade"])]
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
"""Bytes or inodes."""
Seconds = Annotated[float, Field(ge=0)]
AbsolutePath = Annotated[
    str, Field(pattern=r"^/[^\x00]*$", max_length=4095, examples=["/mnt/projects"]), AfterValidator(_without_dots)
]
RelativePath = Annotated[
    str,
    Field(
        pattern=r"^([^/\x00][^\x00]*)?$", max_length=4095, description="From the root of the volume; '' is all of it."
    ),
    AfterValidator(_without_dots),
]
SourceText = Annotated[
    str,
    Field(
        pattern=r"^(/|[a-z][a-z0-9+.-]*://)[^\x00]*$",
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
TaskId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", examples=["3f2a9c0d11e84b7a"])]
EventCursor = Annotated[str, Field(pattern=r"^[0-9]{1,12}-[0-9]{1,12}$", examples=["1-0"])]
Cursor = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=8192, description="'next_cursor' of the page before.")
]
