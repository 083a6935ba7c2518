"""What status says is wrong, and when."""

import json

import attrs
import pytest
import trio

from volgate.daemon.health import LATE_S, STUCK_S, VERY_LATE_S, Standstill, find_problems, find_storage_problems
from volgate.drivers.allowance import Allowance
from volgate.drivers.report import BackendReport
from volgate.dto import StorageQuotaInfo
from volgate.errors import NoSpace

WELL = {
    "oldest_s": 0.0, "in_flight": 0, "waiting": 0, "standstill_s": 0.0, "unsettled": False, "unfenced": "",
    "unscheduled": "", "allowance": None, "caches": False,
}  # fmt: skip


def codes(used=5, limit=10, **figures):
    quota = StorageQuotaInfo("v", used, limit, 1, "posix")
    return [(problem.code, problem.degrades) for problem in find_problems(quota, **{**WELL, **figures})]


def test_a_mount_that_serves_has_no_problems():
    assert codes() == codes(limit=None) == codes(oldest_s=STUCK_S - 1, in_flight=3, waiting=9) == []


def test_each_problem_is_named():
    assert codes(used=11) == [("above_limit", False)]
    assert codes(unsettled=True) == [("unsettled", False)]
    full = Allowance(lambda: 5, lambda: frozenset({1}))
    full.limit_bytes = 5
    assert codes(allowance=full) == []
    with pytest.raises(NoSpace):
        trio.run(full.make_room_for, 1, lambda ids: True)
    assert codes(allowance=full) == [("snapshots_full", True)]
    full.limit_bytes = 6
    assert codes(allowance=full) == []
    assert codes(unscheduled="no room") == [("unscheduled", False)]
    assert codes(unfenced="no rights") == [("unfenced", False)]
    assert codes(oldest_s=STUCK_S + 1, in_flight=1) == [("storage_hangs", True)]
    assert codes(waiting=1, standstill_s=STUCK_S + 1) == [("nobody_reads", True)]


def test_what_becomes_of_changes_that_snapshots_have_no_room_for_is_said_as_it_is_there():
    full = Allowance(lambda: 5, lambda: frozenset({1}))
    full.limit_bytes = 4
    for caches, said in ((False, "hold are refused (ENOSPC); delete"), (True, "hold wait to be uploaded, and no")):
        quota = StorageQuotaInfo("v", 1, 10, 1, "posix")
        (problem,) = find_problems(quota, **{**WELL, "allowance": full, "caches": caches})
        assert said in problem.message


def test_a_standstill_needs_waiting_requests_and_no_answer_between_two_looks():
    standstill = Standstill()
    assert standstill.look(0, answered=5, waiting=1) == 0  # the first look knows nothing
    assert standstill.look(100, answered=5, waiting=0) == 0
    assert standstill.look(200, answered=5, waiting=1) == 0  # waits, but since when?
    assert standstill.look(207, answered=5, waiting=1) == 7
    assert standstill.look(208, answered=6, waiting=1) == 0


STORED = BackendReport(
    backlog_files=0, backlog_bytes=0, stored_bytes=9, oldest_s=0.0, oldest_key="", refused=0, last_error="",
    lease="held", lease_holder="", keeps_versions=None, volumes_within=(), broken_promises=(), cached_bytes=0,
    max_cached_bytes=1, cache_lacking_bytes=0, cache_hits=0, cache_misses=0, staged_bytes=0, max_staged_bytes=1,
    requests={},
)  # fmt: skip
HOLDER = json.dumps({"mount_point": "/mnt/b", "pid": 7, "host": "ann", "since": 0})


def storage_problems(**figures):
    return [(p.code, p.degrades) for p in find_storage_problems(attrs.evolve(STORED, **figures), "/mnt/v")]


def test_a_backend_that_stores_all_in_time_has_no_problems():
    assert find_storage_problems(None, "/mnt/v") == storage_problems() == []
    assert storage_problems(backlog_files=3, oldest_key="k", oldest_s=LATE_S + 1) == []
    assert storage_problems(backlog_files=3, oldest_key="k", oldest_s=LATE_S - 1, last_error="no answer") == []


def test_a_backlog_that_grows_old_is_a_problem_sooner_where_the_storage_gives_errors():
    assert storage_problems(backlog_files=1, oldest_s=LATE_S + 1, last_error="no answer") == [("not_stored", True)]
    assert storage_problems(backlog_files=1, oldest_s=VERY_LATE_S + 1) == [("not_stored", False)]


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"backlog_files": 3, "refused": 2}, "refuses 2 files: volgate quarantine list /mnt/v"),
        ({"cache_lacking_bytes": 3 << 20}, "until 3 MiB more are free"),
        ({"lease": "fenced"}, "until the server answers again"),
        ({"lease": "lost", "lease_holder": HOLDER}, "at /mnt/b by process 7 on host ann since"),
        (
            {"lease": "lost", "backlog_files": 2, "backlog_bytes": 2048},
            "will not be stored (2 files, 2 KiB)",
        ),
    ],
)
def test_each_problem_with_the_storage_says_what_helps(figures, said):
    assert said in find_storage_problems(attrs.evolve(STORED, **figures), "/mnt/v")[0].message
