"""Public suites on a mounted volume, case by case against the file system below it."""

import os

import pytest

import conformance

FSX_OPERATIONS = int(os.environ.get("VOLGATE_FSX_OPERATIONS", "4000"))
ATTEMPTS = 3
"""Cases about times sleep 20 ms and compare; on a busy host one of them may fail by itself, on either side."""
DIFFERENCES = {
    # case: (below, mounted). Each stands in vfs/README.md with its reason.
    "link::link_count_max": ("ok", "skipped"),
}


@pytest.mark.timeout(1200)
def test_pjdfstest_gives_case_by_case_what_it_gives_on_the_file_system_below(shared_volume, module_place):
    below = module_place / "below"
    below.mkdir()
    below.chmod(0o755)
    different = {}
    for _ in range(ATTEMPTS):
        expected = conformance.pjdfstest(below, module_place)
        found = conformance.pjdfstest(shared_volume.path, module_place)
        assert set(found) == set(expected)
        different = {case: (expected[case], found[case]) for case in expected if expected[case] != found[case]}
        if different == DIFFERENCES:
            return
    assert different == DIFFERENCES


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_fsx_finds_every_byte_where_it_was_written(shared_volume, module_place, seed):
    conformance.fsx(shared_volume.path / f"fsx-{seed}", seed, FSX_OPERATIONS, module_place)


def test_every_difference_stands_in_the_semantics():
    from pathlib import Path

    import volgate.vfs

    semantics = (Path(volgate.vfs.__file__).parent / "README.md").read_text()
    assert all(case in semantics for case in DIFFERENCES)
