"""What a ledger is believed after an epoch that was not closed."""

import trio

from volgate.dto import Usage
from volgate.ledger.sqlite import SqliteLedger


def reopened(place, measure_key):
    ledger = SqliteLedger(place / "ledger.db", place / "slots", "0" * 32, b"place")
    found = trio.run(ledger.recover, measure_key)
    ledger.release()
    return found


async def measure(key):
    return Usage(7, 1)


def run_epoch(place, *, closed):
    ledger = SqliteLedger(place / "ledger.db", place / "slots", "0" * 32, b"place")
    ledger.begin(Usage(0, 0))
    slot = ledger.open_slot(b"key", Usage(0, 0))
    ledger.close_slot(slot, Usage(1000, 1))
    if closed:
        ledger.close()
    ledger.release()


def test_what_was_settled_stands_where_it_survives_the_process_and_else_is_counted(tmp_path):
    run_epoch(tmp_path, closed=False)
    assert reopened(tmp_path, measure).usage == Usage(1000, 1)
    found = reopened(tmp_path, None)
    assert found.usage is None and "synced" in found.reason


def test_an_epoch_that_was_closed_is_believed(tmp_path):
    run_epoch(tmp_path, closed=True)
    assert reopened(tmp_path, None).usage == Usage(1000, 1)
