"""Whose files a mount shows, and whose name a new file gets."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volgate.core.id_map import NOBODY, IdMap, IdRange, parse_ranges
from volgate.dto import AttributeChanges, FileAttributes

FILE = FileAttributes(5, 0o100666, 1, 1000, 1000, 0, 0, 0, 0, 0, 0)


def test_without_options_everything_is_as_stored():
    assert IdMap().show(FILE) == FILE
    assert IdMap().store_owner(7, 8) == (7, 8)


def test_uid_gid_and_umask_say_what_is_shown():
    shown = IdMap(uid=1, gid=2, umask=0o027).show(FILE)
    assert (shown.uid, shown.gid, shown.mode) == (1, 2, 0o100640)


@given(st.integers(0, 2**32 - 2))
def test_what_a_map_shows_it_stores_again(uid):
    ranges = (IdRange(0, 100_000, 65_536), IdRange(70_000, 0, 10))
    id_map = IdMap(uids=ranges, gids=ranges)
    owner = id_map.store_owner(uid, uid)
    if owner is None:
        assert not any(r.inside <= uid < r.inside + r.count for r in ranges)
    else:
        assert id_map.show(attrs.evolve(FILE, uid=owner[0], gid=owner[1])).uid == uid


def test_an_id_outside_the_map_is_nobodys_and_makes_no_file():
    id_map = IdMap(uids=(IdRange(0, 100, 10),))
    assert id_map.show(FILE).uid == NOBODY
    assert id_map.store_owner(10, 0) is None
    assert id_map.store_changes(AttributeChanges(uid=10), 0) is None
    assert id_map.store_changes(AttributeChanges(uid=9), 0) == AttributeChanges(uid=109)


@pytest.mark.parametrize(("squash", "root", "user"), [("none", 0, 7), ("root", NOBODY, 7), ("all", NOBODY, NOBODY)])
def test_squash_decides_whose_new_files_are(squash, root, user):
    id_map = IdMap(squash=squash)
    assert id_map.store_owner(0, 0)[0] == root
    assert id_map.store_owner(7, 7)[0] == user
    refused = id_map.store_changes(AttributeChanges(uid=1), 0) is None
    assert refused == (squash != "none")
    assert id_map.store_changes(AttributeChanges(mode=0o600), 0) == AttributeChanges(mode=0o600)


def test_a_shown_owner_cannot_be_changed_but_set_to_itself():
    assert IdMap(uid=5).store_changes(AttributeChanges(uid=6), 0) is None
    assert IdMap(uid=5).store_changes(AttributeChanges(uid=5), 0) == AttributeChanges()


@pytest.mark.parametrize("text", ["", "1:2", "1:2:0", "a:b:c", "1:2:3+", "-1:2:3"])
def test_what_is_no_map_is_refused(text):
    with pytest.raises(ValueError, match="0:100000:65536"):
        parse_ranges(text)
