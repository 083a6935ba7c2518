"""Which snapshots a schedule takes, and which it lets go."""

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volgate.core.retention import CLOCKS_S, find_expired, is_due, parse_policy

HOUR, DAY = 3600, 86_400
NEW_YEAR = calendar.timegm((2026, 1, 1, 0, 0, 0))
LATER = NEW_YEAR + 400 * DAY
TIMES = st.lists(st.integers(0, 400 * DAY).map(lambda seconds: NEW_YEAR + seconds), max_size=40, unique=True)
POLICY = st.dictionaries(st.sampled_from(["hourly", "daily", "weekly", "monthly"]), st.integers(1, 5), min_size=1)


def policy_of(counts):
    return parse_policy(",".join(f"{kind}={count}" for kind, count in counts.items()))


@given(POLICY, TIMES)
def test_the_newest_is_kept_and_what_is_left_is_left_again(counts, times):
    policy = policy_of(counts)
    taken = [(str(at), at) for at in times]
    expired = find_expired(policy, taken, LATER)
    left = [snapshot for snapshot in taken if snapshot[0] not in expired]
    assert not times or str(max(times)) not in expired
    assert len(left) <= sum(counts.values())
    assert find_expired(policy, left, LATER) == []


@given(POLICY, TIMES, st.randoms())
def test_the_order_in_which_they_are_told_does_not_matter(counts, times, chance):
    taken = [(str(at), at) for at in times]
    shuffled = list(taken)
    chance.shuffle(shuffled)
    assert find_expired(policy_of(counts), taken, LATER) == find_expired(policy_of(counts), shuffled, LATER)


@given(POLICY, TIMES, st.lists(st.integers(1, 10_000 * DAY), max_size=5), st.integers(0, 40 * DAY))
def test_snapshots_of_the_future_change_nothing_and_stay(counts, times, ahead, after_s):
    policy, now = policy_of(counts), max(times, default=NEW_YEAR) + after_s
    future = [now + CLOCKS_S + seconds for seconds in ahead]
    assert is_due(policy, times + future, now) == is_due(policy, times, now)
    taken = [(str(at), at) for at in {*times, now}]
    expired = find_expired(policy, taken + [(f"future {at}", at) for at in future], now)
    assert expired == find_expired(policy, taken, now)
    assert str(now) not in expired


@given(POLICY, st.integers(0, 10_000), st.integers(-CLOCKS_S, CLOCKS_S))
def test_after_a_snapshot_none_is_due_however_the_clock_is_corrected_within_the_period(counts, period, correction_s):
    now = NEW_YEAR + period * HOUR + HOUR // 2
    assert not is_due(policy_of(counts), [now], now + correction_s)


def test_a_year_of_hours_leaves_the_last_hours_days_weeks_and_months():
    taken = [(str(n), NEW_YEAR + n * HOUR) for n in range(365 * 24)]
    expired = set(find_expired(parse_policy("hourly=24,daily=7,weekly=4,monthly=12"), taken, LATER))
    left = [int(name) for name, _ in taken if name not in expired]
    assert left[-24:] == list(range(365 * 24 - 24, 365 * 24))
    assert 24 + 6 + 3 + 10 <= len(left) <= 24 + 7 + 4 + 12


def test_one_is_taken_when_a_new_period_has_begun():
    policy = parse_policy("daily=7,hourly=2")
    assert str(policy) == "hourly=2,daily=7"
    assert is_due(policy, [], NEW_YEAR)
    assert not is_due(policy, [NEW_YEAR + 1, NEW_YEAR - HOUR], NEW_YEAR + HOUR - 1)
    assert is_due(policy, [NEW_YEAR + HOUR - 1], NEW_YEAR + HOUR)
    assert not is_due(policy, [NEW_YEAR + 1], NEW_YEAR - 1), "the clock was corrected"
    assert is_due(policy, [NEW_YEAR + DAY], NEW_YEAR), "the clock was set back"
    week = parse_policy("weekly=1")
    assert not is_due(week, [calendar.timegm((2025, 12, 31, 0, 0, 0))], calendar.timegm((2026, 1, 4, 23, 0, 0)))
    assert is_due(week, [calendar.timegm((2025, 12, 31, 0, 0, 0))], calendar.timegm((2026, 1, 5, 0, 0, 0)))


@pytest.mark.parametrize("text", ["", "yearly=1", "daily", "daily=0", "daily=x", "daily=7,", "daily=-1", "daily=1.5"])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match=r"schedule is like|number from 1"):
        parse_policy(text)
