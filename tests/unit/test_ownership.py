"""What is said to who cannot have a volume."""

import json
from pathlib import Path

import pytest
import trio

from volgate.errors import Busy
from volgate.volume.ownership import acquire_ownership

OWNER = {"mount_point": "/mnt/b", "pid": 7, "host": "ann", "since": 0, "backlog_bytes": 2048, "backlog_files": 3}


class Taken:
    def __init__(self, line):
        self.line = line

    async def acquire_ownership(self, holder):
        raise Busy(self.line)


def refusal(line):
    with pytest.raises(Busy) as caught:
        trio.run(acquire_ownership, Taken(line), "v", Path("/mnt"))
    return str(caught.value)


def test_of_an_owner_that_lives_is_said_where_to_unmount():
    said = refusal(json.dumps(OWNER))
    assert said.startswith("volume v is in use at /mnt/b by process 7 on host ann since ")
    assert said.endswith("; unmount it there first")


def test_of_an_owner_without_a_mount_is_said_how_to_end_it():
    said = refusal(json.dumps({**OWNER, "mount_point": None}))
    assert said.startswith("volume v is in use without a mount by process 7 on host ann since ")
    assert said.endswith("; 'volgate umount v' there ends it")


def test_of_a_host_that_left_files_behind_is_said_what_either_way_costs():
    assert refusal(json.dumps({**OWNER, "expired": True})) == (
        "host ann no longer owns volume v, but its cache still has 3 files (2 KiB) that are not in the bucket. Start v "
        "on ann to upload them; --take-over makes this host the owner, and what ann holds will not come"
    )


def test_of_a_lease_that_cannot_be_read_is_said_that_and_how_to_replace_it():
    said = refusal(json.dumps({"unreadable": True, "expired": True}))
    assert "cannot be read" in said and "--take-over" in said


@pytest.mark.parametrize("line", ["", "{}", "[1]", "no json", json.dumps({"host": None})])
def test_whatever_a_holder_says_there_is_one_line(line):
    assert refusal(line).startswith("volume v is in use")
