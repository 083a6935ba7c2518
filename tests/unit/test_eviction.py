"""The order of use: what goes first when room is needed."""

from hypothesis import given
from hypothesis import strategies as st

from volgate.core.eviction import UseOrder

names = st.sampled_from("abcde")
steps = st.one_of(
    st.tuples(st.just("weigh"), names, st.integers(0, 100)),
    st.tuples(st.just("touch"), names),
    st.tuples(st.just("remove"), names),
)


def ordered(steps):
    """Return the order after some steps, and a plain list of [name, bytes] that it should be like."""
    order, model = UseOrder(), []
    for step, name, *more in steps:
        at = next((n for n, (known, _) in enumerate(model) if known == name), None)
        if step == "weigh":
            order.weigh(name, *more)
            if at is None:
                model.append([name, *more])
            else:
                model[at][1] = more[0]
        elif step == "touch":
            order.touch(name)
            if at is not None:
                model.append(model.pop(at))
        else:
            assert order.remove(name) == (0 if at is None else model.pop(at)[1])
    return order, model


@given(st.lists(steps))
def test_what_was_used_last_goes_last(steps):
    order, model = ordered(steps)
    assert order.total_bytes == sum(bytes_ for _, bytes_ in model)
    assert [name for name in "abcde" if name in order] == sorted(name for name, _ in model)
    assert order.plan_eviction(10**6) == [name for name, _ in model]


@given(st.lists(steps), st.integers(-10, 400))
def test_no_more_goes_than_has_to(steps, excess):
    order, model = ordered(steps)
    sizes = dict(map(tuple, model))
    victims = order.plan_eviction(excess)
    assert victims == [name for name, _ in model[: len(victims)]]
    if victims:
        assert sum(sizes[name] for name in victims[:-1]) < excess
    if len(victims) < len(model):
        assert sum(sizes[name] for name in victims) >= excess
