"""What status says is wrong, and when."""

from volgate.daemon.health import STUCK_S, Standstill, find_problems
from volgate.dto import StorageQuotaInfo

WELL = {"oldest_request_s": 0.0, "in_flight": 0, "waiting": 0, "standstill_s": 0.0, "unsettled": False}


def codes(used=5, limit=10, **figures):
    quota = StorageQuotaInfo("v", used, limit, 1, "posix")
    return [(problem.code, problem.degrades) for problem in find_problems(quota, **{**WELL, **figures})]


def test_a_mount_that_serves_has_no_problems():
    assert codes() == codes(limit=None) == codes(oldest_request_s=STUCK_S - 1, in_flight=3, waiting=9) == []


def test_each_problem_is_named():
    assert codes(used=11) == [("above_limit", False)]
    assert codes(unsettled=True) == [("unsettled", False)]
    assert codes(oldest_request_s=STUCK_S + 1, in_flight=1) == [("storage_hangs", True)]
    assert codes(waiting=1, standstill_s=STUCK_S + 1) == [("nobody_reads", True)]


def test_a_standstill_needs_waiting_requests_and_no_answer_between_two_looks():
    standstill = Standstill()
    assert standstill.look(0, answered=5, waiting=1) == 0  # the first look knows nothing
    assert standstill.look(100, answered=5, waiting=0) == 0
    assert standstill.look(200, answered=5, waiting=1) == 0  # waits, but since when?
    assert standstill.look(207, answered=5, waiting=1) == 7
    assert standstill.look(208, answered=6, waiting=1) == 0
