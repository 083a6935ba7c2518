"""What keys count as files and directories, against a tree that is built of them."""

from hypothesis import example, given
from hypothesis import strategies as st

from volgate.core.object_usage import ObjectUsage
from volgate.dto import Usage

PARTS = ["a", "b", "a.", "a-", "a0", "a.r", "a.rclonelink", ".rclonelink", "..rclonelink", "", ".", "..", "\0",
         "n" * 256, "n" * 250 + ".rclonelink", ".volgate", ".snapshots", "é", "é" * 128]  # fmt: skip
keys = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join).filter(bool)
buckets = st.dictionaries(keys, st.integers(0, 9))
SUFFIX = ".rclonelink"


def is_name(part):
    return part not in ("", ".", "..") and "\0" not in part and len(part.encode()) <= 255


def tree_of(bucket):
    """Return what is shown: path to size, None for directories. Directories come first, then objects in order."""
    tree = {}
    for key in bucket:
        *above, _ = key.split("/")
        for depth, part in enumerate(above):
            if not is_name(part) or above[0] in (".volgate", ".snapshots"):
                break
            tree["/".join(above[: depth + 1])] = None
    for key in sorted(bucket, key=str.encode):
        *above, last = key.split("/")
        name = last.removesuffix(SUFFIX) or last
        path = "/".join([*above, name])
        is_shown = is_name(name) and (not above or "/".join(above) in tree)
        if is_shown and path not in tree and path not in (".volgate", ".snapshots"):
            tree[path] = bucket[key]
    return tree


def usage_of(tree):
    return sum(size or 0 for size in tree.values()), len(tree)


def counted(bucket, prefix="", passed_over=None):
    usage = ObjectUsage(prefix, passed_over or {})
    for key in sorted(bucket, key=str.encode):
        if key.startswith(prefix):
            usage.add(key, bucket[key])
    return usage.bytes_, usage.inodes


@given(buckets)
@example({"a": 1, "a-": 1, "a.rclonelink": 1, "a/b": 1})
@example({"a//b": 1, "a/..": 1})
@example({"a.": 1, "a.rclonelink": 2, "a.r": 1, "a.r/b": 1, "a/": 0})
def test_keys_count_as_the_tree_that_they_show(bucket):
    assert counted(bucket) == usage_of(tree_of(bucket))


@given(buckets)
def test_directories_counted_one_by_one_count_the_same(bucket):
    bucket = {f"d/{key}": size for key, size in bucket.items()}
    bytes_, inodes = counted(bucket, "d/")
    tree = tree_of({**bucket, "d/": 0})
    assert (bytes_, inodes + 1) == usage_of(tree)


KEYS = st.sampled_from(["a", "b", "d/", "d/x", "d/y", "e/f/x"])


@given(st.dictionaries(KEYS, st.integers(0, 9)), st.sets(KEYS))
def test_what_others_account_for_counts_nothing_but_the_directories_above_it_do(bucket, others):
    passed_over = {key: Usage(0 if key.endswith("/") else bucket[key], 1) for key in others & set(bucket)}
    bytes_, inodes = counted(bucket, passed_over=passed_over)
    total = bytes_ + sum(usage.bytes_ for usage in passed_over.values()), inodes + len(passed_over)
    assert total == usage_of(tree_of(bucket))


@given(st.dictionaries(KEYS, st.integers(0, 9)), st.sets(KEYS))
def test_what_is_leaving_counts_nothing(bucket, leaving):
    left = {key: size for key, size in bucket.items() if key not in leaving}
    assert counted(bucket, passed_over=dict.fromkeys(leaving, Usage(0, 0))) == usage_of(tree_of(left))
