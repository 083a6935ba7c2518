from hypothesis import given
from hypothesis import strategies as st

from volgate.core.fence import fence_bytes, fence_inodes


@given(st.integers(0, 2**60))
def test_the_fence_stands_above_the_limit_by_64_mib_or_two_percent(limit):
    assert fence_bytes(limit) - limit == max(64 << 20, limit // 50)
    assert fence_inodes(limit) - limit == max(1000, limit // 50)
