"""Attributes of files in objects' metadata: what others write is read, what we write is what s3fs writes."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volgate.core.object_metadata import StoredAttributes, decode, encode, measure

TYPES = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]
TIMES = st.none() | st.integers(-(10**18), 10**20 - 1)
IDS = st.none() | st.integers(0, 2**32 - 2)
ATTRIBUTES = st.builds(
    StoredAttributes,
    mode=st.none()
    | st.builds(
        lambda kind, bits: kind | (0o777 if stat.S_ISLNK(kind) else bits),
        st.sampled_from(TYPES),
        st.integers(0, 0o7777),
    ),
    uid=IDS,
    gid=IDS,
    rdev=st.none() | st.integers(1, 2**32 - 2),
    atime_ns=TIMES,
    mtime_ns=TIMES,
    ctime_ns=TIMES,
    xattrs=st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=40), max_size=4),
)


@given(ATTRIBUTES)
def test_what_is_written_is_read_and_can_be_sent(attributes):
    metadata = encode(attributes)
    assert decode(metadata) == attributes
    assert all(text.isascii() and text.isprintable() for pair in metadata.items() for text in pair)
    assert all(key == key.lower() for key in metadata)
    assert measure(metadata) == sum(map(len, [*metadata, *metadata.values()]))


@given(
    st.dictionaries(
        st.sampled_from(["mode", "uid", "gid", "rdev", "mtime", "ctime", "xattr", "gcsfuse_mtime"]), st.text()
    )
)
def test_nonsense_is_nothing_said(metadata):
    assert isinstance(decode(metadata), StoredAttributes)


def test_modes_are_told_from_each_other_in_both_notations():
    modes = [kind | bits for kind in TYPES for bits in range(0o10000) if not stat.S_ISLNK(kind) or bits == 0o777]
    assert all(decode({"mode": str(mode)}).mode == mode for mode in modes), "s3fs, geesefs: decimal"
    of_files = [mode for mode in modes if stat.S_ISREG(mode) or stat.S_ISLNK(mode)]
    of_directories = [mode for mode in modes if stat.S_ISDIR(mode) and mode != 0o41471]  # 41471: a symlink, in decimal
    for mode in of_files + of_directories:
        assert decode({"mode": f"{mode:o}"}).mode == mode, "rclone: octal"


def test_permissions_alone_leave_the_type_to_the_key():
    assert decode({"mode": "488"}, stat.S_IFDIR).mode == 0o40750
    assert decode({"mode": "488"}).mode == 0o100750


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"mode": "33188", "uid": "1000", "mtime": "1700000000.123456789"},
         StoredAttributes(mode=0o100644, uid=1000, mtime_ns=1700000000123456789)),
        ({"mode": "100640", "atime": "2023-11-14T22:13:20.5Z", "rdev": "0x801"},
         StoredAttributes(mode=0o100640, atime_ns=1700000000500000000, rdev=0x801)),
        ({"mtime": "1700000000.25"}, StoredAttributes(mtime_ns=1700000000250000000)),
        ({"mtime": "1700000000"}, StoredAttributes(mtime_ns=1700000000000000000)),
        ({"mtime": "-1.5"}, StoredAttributes(mtime_ns=-1500000000)),
        ({"gcsfuse_mtime": "2023-11-14T22:13:20.123456789Z"}, StoredAttributes(mtime_ns=1700000000123456789)),
        ({"goog-reserved-file-mtime": "1700000000"}, StoredAttributes(mtime_ns=1700000000000000000)),
        ({"gcsfuse_symlink_target": "a/b"}, StoredAttributes(mode=0o120777, symlink_target=b"a/b")),
        ({"--symlink-target": "a%20b"}, StoredAttributes(mode=0o120777, symlink_target=b"a b")),
        ({"goog-reserved-file-is-symlink": "true"}, StoredAttributes(mode=0o120777)),
        ({"mode": "0644"}, StoredAttributes(mode=0o100644)),
        ({"xattr": "%7B%22user.a%22%3A%22YQ%3D%3D%22%7D"}, StoredAttributes(xattrs={b"user.a": b"a"})),
        ({"mode": "999999999", "uid": "-1", "gid": "x", "mtime": "yesterday", "xattr": "%7B"}, StoredAttributes()),
        ({"mtime": "2023-11-14T22:13:20"}, StoredAttributes()),
        ({}, StoredAttributes()),
    ],
)  # fmt: skip
def test_each_dialect(metadata, expected):
    assert decode(metadata) == expected
