"""The parts of an upload within S3's limits."""

from hypothesis import given
from hypothesis import strategies as st

from volgate.core.parts import MIB, parts_of

LARGEST = 5 << 40
sizes = st.one_of(st.integers(0, 64 * MIB), st.integers(0, LARGEST))


@given(sizes)
def test_the_parts_are_the_file_from_its_begin_to_its_end(size):
    parts = list(parts_of(size))
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert [part.start for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == size
    assert all(part.start < part.end for part in parts) or size == 0


@given(sizes, sizes)
def test_appending_leaves_all_parts_but_the_last_as_they_were(one, other):
    shorter, longer = list(parts_of(min(one, other))), list(parts_of(max(one, other)))
    assert longer[: len(shorter) - 1] == shorter[:-1]
    assert longer[len(shorter) - 1].start == shorter[-1].start


@given(sizes)
def test_all_parts_but_the_last_have_5_mib_to_5_gib_and_the_last_no_more(size):
    *others, last = parts_of(size)
    assert all(5 * MIB <= part.end - part.start <= 5120 * MIB for part in others)
    assert last.end - last.start <= 5120 * MIB


def test_the_largest_object_has_no_more_than_10_000_parts():
    parts = list(parts_of(LARGEST))
    assert (parts[-1].end, len(parts) <= 10_000) == (LARGEST, True)
