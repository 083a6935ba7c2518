"""The public suites on a volume in a bucket, case by case against ext4."""

import os
from pathlib import Path

import pytest

import conformance
import s3_server
import volgate.vfs

FSX_OPERATIONS = int(os.environ.get("VOLGATE_FSX_OPERATIONS", "4000"))
ATTEMPTS = 3
"""As in test_conformance.py."""
KINDS = ("regular", "fifo", "block", "char", "socket")
CALLS = (
    "chmod", "chown", "chown::lchown", "link", "mkdir", "mkfifo", "mknod", "mknod::privileged", "open", "rename",
    "rmdir", "symlink", "truncate", "unlink",
)  # fmt: skip
SECOND_NAME = (
    "link::changed_ctime_success", "link::remove_link", "link::share_metadata", "rename::preserve_metadata",
    "rename::to_multiply_linked", "unlink::unchanged_ctime_failed", "unlink::update_ctime_success",
)  # fmt: skip
DIFFERENCES = {
    # Each of these groups stands in vfs/README.md with its reason.
    **{f"{case}::{kind}": ("ok", "FAILED") for case in SECOND_NAME for kind in KINDS},
    **{f"{call}::enametoolong_path": ("ok", "FAILED") for call in CALLS},
    "rename::updates_link_parent": ("ok", "FAILED"),
    "link::link_count_max": ("ok", "skipped"),
}


@pytest.fixture(scope="module")
def volume_in_a_bucket(module_place):
    with s3_server.running(module_place / "s3") as server:
        server.make_bucket("bucket")
        with s3_server.mounted(server, "bucket/prefix", module_place, "--quota", "10GiB") as mount:
            yield mount


@pytest.mark.timeout(600)
def test_pjdfstest_differs_from_ext4_in_hard_links_lengths_of_paths_and_link_counts_of_directories(
    volume_in_a_bucket, module_place
):
    below = module_place / "below"
    below.mkdir()
    below.chmod(0o755)
    different = {}
    for _ in range(ATTEMPTS):
        expected = conformance.pjdfstest(below, module_place)
        found = conformance.pjdfstest(volume_in_a_bucket.path, module_place)
        assert set(found) == set(expected)
        different = {case: (expected[case], found[case]) for case in expected if expected[case] != found[case]}
        if different == DIFFERENCES:
            return
    assert different == DIFFERENCES


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_fsx_finds_every_byte_where_it_was_written(volume_in_a_bucket, module_place, seed):
    conformance.fsx(volume_in_a_bucket.path / f"fsx-{seed}", seed, FSX_OPERATIONS, module_place)


def test_every_difference_stands_in_the_semantics():
    semantics = (Path(volgate.vfs.__file__).parent / "README.md").read_text()
    groups = {*SECOND_NAME, "enametoolong_path", "rename::updates_link_parent", "link::link_count_max"}
    assert all(case in semantics for case in groups)
