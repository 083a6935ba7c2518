"""What a ledger is believed after an epoch that was not closed."""

import contextlib
import sqlite3

import pytest
import trio

from volgate.dto import Usage
from volgate.ledger.sqlite import SqliteLedger, read_stored_usage


def reopened(place, measure_key, epoch_id):
    ledger = SqliteLedger(place / "ledger.db", place / "slots", "0" * 32, b"place")
    found = trio.run(ledger.recover, measure_key, epoch_id)
    ledger.release()
    return found


async def measure(key):
    return Usage(7, 1)


def run_epoch(place, *, closed):
    ledger = SqliteLedger(place / "ledger.db", place / "slots", "0" * 32, b"place")
    epoch_id = ledger.begin(Usage(0, 0))
    slot = ledger.open_slot(b"key", Usage(0, 0))
    ledger.close_slot(slot, Usage(1000, 1))
    if closed:
        epoch_id = ledger.close()
    ledger.release()
    return epoch_id


def test_what_was_settled_stands_where_it_survives_the_process_and_else_is_counted(tmp_path):
    epoch_id = run_epoch(tmp_path, closed=False)
    assert reopened(tmp_path, measure, epoch_id).usage == Usage(1000, 1)
    found = reopened(tmp_path, None, epoch_id)
    assert found.usage is None and "synced" in found.reason


def test_an_epoch_that_was_closed_is_believed(tmp_path):
    epoch_id = run_epoch(tmp_path, closed=True)
    assert reopened(tmp_path, None, epoch_id).usage == Usage(1000, 1)


@pytest.mark.parametrize("closed", [True, False])
def test_what_was_stored_before_another_ledger_served_the_volume_is_not_believed(tmp_path, closed):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    epoch_id = run_epoch(tmp_path / "here", closed=closed)
    since = run_epoch(tmp_path / "there", closed=True)
    for last, why in ((since, "another host or user"), ("", "beside the data is missing")):
        found = reopened(tmp_path / "here", measure, last)
        assert found.usage is None and why in found.reason
        assert read_stored_usage(tmp_path / "here/ledger.db", last) is None
    assert read_stored_usage(tmp_path / "here/ledger.db", epoch_id) is not None


def test_a_ledger_of_an_earlier_format_says_nothing_to_who_only_looks(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as older:
        older.execute("CREATE TABLE ledger (one INTEGER, used_bytes INTEGER, used_inodes INTEGER)")
    assert read_stored_usage(tmp_path / "ledger.db", "") is None
