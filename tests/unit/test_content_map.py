"""Where a changed file's bytes come from, against a list that has the origin of each byte."""

from hypothesis import given
from hypothesis import strategies as st

from volgate.core.content_map import ContentMap, Origin

MAX = 60
offsets = st.integers(0, MAX)
steps = st.lists(st.one_of(st.tuples(st.just("write"), offsets, offsets), st.tuples(st.just("truncate"), offsets)))
LETTERS = {Origin.STAGED: "s", Origin.BASE: "b", Origin.ZEROS: "z"}


def changed(base, steps):
    """Return the content after some steps, and the origin of each of its bytes as a string."""
    content, model = ContentMap(base, base), "b" * base
    for step, start, *end in steps:
        if step == "truncate":
            content.truncate(start)
            model = model[:start].ljust(start, "z")
        elif start < end[0]:
            content.write(start, end[0])
            model = model.ljust(start, "z")[:start] + "s" * (end[0] - start) + model[end[0] :]
    return content, model


@given(offsets, steps, offsets, offsets)
def test_each_byte_comes_from_where_it_was_written_last(base, steps, start, end):
    content, model = changed(base, steps)
    assert content.size == len(model)
    pieces = list(content.origins(start, end))
    assert "".join(LETTERS[origin] * (until - since) for origin, since, until in pieces) == model[start:end]
    assert [piece[1] for piece in pieces] == [start, *(piece[2] for piece in pieces[:-1])][: len(pieces)]
    assert content.is_kept(start, end) == (start < end <= len(model) and set(model[start:end]) == {"b"})


@given(offsets, steps)
def test_staged_ranges_lie_apart_in_order_and_are_counted(base, steps):
    content, model = changed(base, steps)
    assert content.staged_bytes == model.count("s")
    edges = [edge for piece in content.staged for edge in piece]
    assert edges == sorted(set(edges)), "none is empty, and none touches another"
    assert content.base_end <= content.size


@given(offsets, steps)
def test_what_the_journal_keeps_of_it_makes_the_same_again(base, steps):
    content, _ = changed(base, steps)
    again = ContentMap(content.size, content.base_end, content.staged)
    assert list(again.origins(0, MAX)) == list(content.origins(0, MAX))
    assert (again.staged_bytes, again.staged) == (content.staged_bytes, content.staged)
