"""The inode table against a plain model: references balance, names follow, numbers are never given twice at once."""

import stat
import sys
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from volgate.core.inode_table import FIRST_OWN_INO, ROOT_INO, InodeTable
from volgate.dto import FileAttributes


def attributes(ino, mode=stat.S_IFREG, nlink=1):
    return FileAttributes(ino, mode | 0o644, nlink, 0, 0, 0, 0, 0, 0, 0, 0)


def test_an_inode_keeps_the_backings_number():
    table = InodeTable()
    assert table.observe(table.root, b"a", attributes(77)).ino == 77


def test_the_number_of_the_root_is_never_given_to_another():
    table = InodeTable()
    assert table.observe(table.root, b"a", attributes(ROOT_INO)).ino >= FIRST_OWN_INO


def test_a_number_given_away_again_by_the_backing_gets_one_of_our_own_while_the_kernel_knows_the_old():
    table = InodeTable()
    old = table.observe(table.root, b"a", attributes(77))
    table.count_lookup(old)
    table.mark_gone(old)
    new = table.observe(table.root, b"a", attributes(77))
    assert new is not old
    assert new.ino >= FIRST_OWN_INO
    table.forget(77, 1)
    assert table.get(77) is None
    assert table.find_backing(77) is new


def test_another_type_under_the_same_number_is_another_inode():
    table = InodeTable()
    file = table.observe(table.root, b"a", attributes(77))
    table.count_lookup(file)
    directory = table.observe(table.root, b"a", attributes(77, stat.S_IFDIR))
    assert directory is not file
    assert directory.ino != file.ino


def test_a_hard_link_survives_the_removal_of_one_name():
    table = InodeTable()
    inode = table.observe(table.root, b"a", attributes(77, nlink=2))
    table.count_lookup(inode)
    assert table.observe(table.root, b"b", attributes(77, nlink=2)) is inode
    table.drop_name(inode, table.root, b"a")
    assert list(inode.names()) == [(table.root, b"b")]


def test_a_directory_stays_while_something_in_it_is_known():
    table = InodeTable()
    directory = table.observe(table.root, b"d", attributes(5, stat.S_IFDIR))
    table.count_lookup(directory)
    file = table.observe(directory, b"f", attributes(6))
    table.count_lookup(file)
    table.forget(5, 1)
    assert table.get(5) is directory
    table.forget(6, 1)
    assert table.get(5) is None
    assert table.statistics().inodes == 1


def test_a_chain_of_thousands_of_directories_goes_without_recursion():
    table = InodeTable()
    parent = table.root
    for ino in range(2, 5002):
        parent = table.observe(parent, b"d", attributes(ino, stat.S_IFDIR))
        table.count_lookup(parent)
    for ino in range(2, 5002):
        table.forget(ino, 1)
    assert table.statistics().inodes == 1


names = st.sampled_from([b"a", b"b", b"c"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("lookup"), names, st.integers(2, 6)),
        st.tuples(st.just("forget"), st.integers(0, 20), st.integers(1, 3)),
        st.tuples(st.just("unlink"), names, st.integers(2, 6)),
        st.tuples(st.just("rename"), names, names),
        st.tuples(st.just("gone"), names, st.integers(2, 6)),
    ),
    max_size=60,
)


def test_what_is_forgotten_leaves_no_memory_behind():
    table = InodeTable()
    for ino in range(2, 50_000):
        table.count_lookup(table.observe(table.root, b"%d" % ino, attributes(ino)))
    kept = table.get(2)
    for ino in range(3, 50_000):
        table.forget(ino, 1)
    assert table.find_backing(2) is table.get(2) is kept
    assert sys.getsizeof(table._by_ino) < 100_000 and sys.getsizeof(table._by_backing) < 100_000


@given(steps)
@settings(max_examples=300, deadline=None)
def test_references_balance_whatever_happens_and_all_goes_when_all_is_forgotten(steps):
    table = InodeTable()
    held = Counter()
    for what, one, two in steps:
        if what == "lookup":
            inode = table.observe(table.root, one, attributes(two, nlink=2))
            table.count_lookup(inode)
            held[inode.ino] += 1
        elif what == "forget" and held:
            ino = sorted(held)[one % len(held)]
            count = min(two, held[ino])
            table.forget(ino, count)
            held[ino] -= count
            if not held[ino]:
                del held[ino]
        else:
            inode = table.find_backing(two) if isinstance(two, int) else None
            if what == "rename":
                inode = next((i for i in map(table.get, held) if i and (table.root, one) in list(i.names())), None)
                if inode is not None:
                    table.move_name(inode, (table.root, one), (table.root, two))
            elif inode is not None and what == "unlink":
                table.drop_name(inode, table.root, one)
            elif inode is not None:
                table.mark_gone(inode)
        statistics = table.statistics()
        assert statistics.held == sum(held.values()) == statistics.lookups - statistics.forgets
        assert all(table.get(ino) is not None for ino in held)
        assert statistics.inodes == len(held) + 1
        assert table.root.children == sum(len(list(table.get(ino).names())) for ino in held)
    for ino, count in list(held.items()):
        table.forget(ino, count)
    assert table.statistics().inodes == 1
    assert table.root.children == 0
