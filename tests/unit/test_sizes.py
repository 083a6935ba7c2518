"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volgate.core.sizes import format_size, parse_count, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("512", 512), ("512B", 512), ("10K", 10240), ("10KiB", 10240), ("10kb", 10_000), ("1.5M", 1572864),
        ("10G", 10 << 30), ("10GiB", 10 << 30), ("10GB", 10 * 10**9), (" 2 TiB ", 2 << 40), ("none", None),
        ("None", None), ("12.3MiB", 12897484),
    ],
)  # fmt: skip
def test_a_size_is_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "10GiBB", "-1", "1.5", "10 20", "9E", "10iB", "1e3"])
def test_what_is_no_size_is_refused_with_its_text(text):
    with pytest.raises(ValueError, match=r"size|bytes|EiB"):
        parse_size(text)


def test_a_number_of_inodes_has_no_bytes():
    assert parse_count("1M") == 1_000_000
    assert parse_count("none") is None
    with pytest.raises(ValueError, match="inodes"):
        parse_count("1MB")


@given(st.integers(0, 2**63 - 1))
def test_every_whole_number_of_bytes_is_read_as_written(size):
    assert parse_size(str(size)) == size


@given(st.integers(0, 2**63 - 1))
def test_every_size_can_be_shown(size):
    assert format_size(size)[0].isdigit()
