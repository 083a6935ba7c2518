"""Which keys lie below a directory's, however they come and go."""

from hypothesis import given
from hypothesis import strategies as st

from volgate.cache.entries import Entries

KEYS = st.lists(st.sampled_from("ab/"), min_size=1, max_size=6).map("".join)


@given(st.lists(st.tuples(st.booleans(), KEYS), max_size=30))
def test_what_lies_below_a_directory_is_what_begins_with_its_key(steps):
    entries = Entries()
    for is_set, key in steps:
        if is_set:
            entries[key] = key
        elif key in entries:
            del entries[key]
    for directory in {key[: n + 1] for _, key in steps for n, letter in enumerate(key) if letter == "/"}:
        found = list(entries.below(directory))
        assert sorted(found) == sorted(key for key in entries if key.startswith(directory) and key != directory)
    for key in list(entries):
        del entries[key]
    assert not entries._below
