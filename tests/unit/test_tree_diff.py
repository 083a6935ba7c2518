"""What differs between two inodes, and between the names of two directories."""

import stat

import attrs
from hypothesis import given
from hypothesis import strategies as st

from volgate.core.tree_diff import LinkGroups, is_same_type, is_untouched, pair_names, what_differs
from volgate.dto import FileAttributes

NAMES = st.dictionaries(st.binary(min_size=1, max_size=2), st.integers(), max_size=6)
FILE = FileAttributes(7, stat.S_IFREG | 0o644, 1, 1, 2, 0, 10, 8, 3, 4, 5)


@given(NAMES, NAMES)
def test_every_name_comes_once_in_order_with_what_each_has(before, after):
    found = list(pair_names(before, after))
    assert [name for name, _, _ in found] == sorted({*before, *after})
    assert all((was, is_) == (before.get(name), after.get(name)) for name, was, is_ in found)


@given(st.dictionaries(st.sampled_from(["size", "mtime_ns", "uid", "gid", "ctime_ns", "nlink", "ino", "atime_ns"]),
                       st.integers(0, 20)))  # fmt: skip
def test_what_is_said_to_be_untouched_differs_in_nothing(changes):
    other = attrs.evolve(FILE, **changes)
    what = what_differs(FILE, other, content=False, xattrs=False, directory_times=True)
    if is_untouched(FILE, other):
        assert what == ()
    assert ("content" in what) == ((other.size, other.mtime_ns) != (10, 4))
    assert ("owner" in what) == ((other.uid, other.gid) != (1, 2))
    assert ("mtime" in what) == (other.mtime_ns != 4)


def test_a_directorys_time_counts_where_it_is_asked_for():
    folder = attrs.evolve(FILE, mode=stat.S_IFDIR | 0o755)
    later = attrs.evolve(folder, mtime_ns=9, size=20)
    assert what_differs(folder, later, content=False, xattrs=False, directory_times=False) == ()
    assert what_differs(folder, later, content=False, xattrs=False, directory_times=True) == ("mtime",)
    assert not is_same_type(folder, FILE) and is_same_type(folder, later)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=20))
def test_names_that_agree_pair_the_inodes_of_two_trees_one_to_one(seen):
    groups = LinkGroups()
    kept = {pair for pair in seen if groups.agree(*pair)}
    assert len({before for before, _ in kept}) == len({after for _, after in kept}) == len(kept)
    assert all(any(pair[0] == k[0] or pair[1] == k[1] for k in kept) for pair in seen)
