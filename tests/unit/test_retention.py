"""Which snapshots a schedule takes, and which it lets go."""

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volgate.core.retention import find_expired, is_due, parse_policy

HOUR, DAY = 3600, 86_400
NEW_YEAR = calendar.timegm((2026, 1, 1, 0, 0, 0))
TIMES = st.lists(st.integers(0, 400 * DAY).map(lambda seconds: NEW_YEAR + seconds), max_size=40, unique=True)
POLICY = st.dictionaries(st.sampled_from(["hourly", "daily", "weekly", "monthly"]), st.integers(1, 5), min_size=1)


def policy_of(counts):
    return parse_policy(",".join(f"{kind}={count}" for kind, count in counts.items()))


@given(POLICY, TIMES)
def test_the_newest_is_kept_and_what_is_left_is_left_again(counts, times):
    policy = policy_of(counts)
    taken = [(str(at), at) for at in times]
    expired = find_expired(policy, taken)
    left = [snapshot for snapshot in taken if snapshot[0] not in expired]
    assert not times or str(max(times)) not in expired
    assert len(left) <= sum(counts.values())
    assert find_expired(policy, left) == []


@given(POLICY, TIMES, st.randoms())
def test_the_order_in_which_they_are_told_does_not_matter(counts, times, chance):
    taken = [(str(at), at) for at in times]
    shuffled = list(taken)
    chance.shuffle(shuffled)
    assert find_expired(policy_of(counts), taken) == find_expired(policy_of(counts), shuffled)


def test_a_year_of_hours_leaves_the_last_hours_days_weeks_and_months():
    taken = [(str(n), NEW_YEAR + n * HOUR) for n in range(365 * 24)]
    expired = set(find_expired(parse_policy("hourly=24,daily=7,weekly=4,monthly=12"), taken))
    left = [int(name) for name, _ in taken if name not in expired]
    assert left[-24:] == list(range(365 * 24 - 24, 365 * 24))
    assert 24 + 6 + 3 + 10 <= len(left) <= 24 + 7 + 4 + 12


def test_one_is_taken_when_a_new_period_has_begun():
    policy = parse_policy("daily=7,hourly=2")
    assert str(policy) == "hourly=2,daily=7"
    assert is_due(policy, None, NEW_YEAR)
    assert not is_due(policy, NEW_YEAR + 1, NEW_YEAR + HOUR - 1)
    assert is_due(policy, NEW_YEAR + HOUR - 1, NEW_YEAR + HOUR)
    assert not is_due(policy, NEW_YEAR + DAY, NEW_YEAR), "the clock was set back"
    week = parse_policy("weekly=1")
    assert not is_due(week, calendar.timegm((2025, 12, 31, 0, 0, 0)), calendar.timegm((2026, 1, 4, 23, 0, 0)))
    assert is_due(week, calendar.timegm((2025, 12, 31, 0, 0, 0)), calendar.timegm((2026, 1, 5, 0, 0, 0)))


@pytest.mark.parametrize("text", ["", "yearly=1", "daily", "daily=0", "daily=x", "daily=7,", "daily=-1", "daily=1.5"])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match=r"schedule is like|number from 1"):
        parse_policy(text)
