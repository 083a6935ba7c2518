"""Log lines: facts, JSON, and a limit for what repeats."""

import json
import logging
import sys

import pytest

from volgate import logs


@pytest.fixture(autouse=True)
def root_logger():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def test_json_lines_hold_message_and_facts(capsys):
    logs.set_up(as_json=True)
    try:
        raise RuntimeError("why")
    except RuntimeError:
        logging.getLogger("x").exception("it failed", extra={"path": "/a b", "code": 5})
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["message"], line["path"], line["code"]) == ("error", "it failed", "/a b", 5)
    assert "RuntimeError: why" in line["traceback"] and line["time"].endswith("Z")


def test_text_lines_quote_what_has_blanks(capsys):
    logs.set_up()
    logging.getLogger("x").warning("slow", extra={"path": "/a b", "seconds": 3})
    assert capsys.readouterr().err.endswith("WARNING slow path='/a b' seconds=3\n")


def test_what_repeats_is_left_out_and_counted():
    limit = logs.RateLimit()

    def write(at, message="failed"):
        record = logging.makeLogRecord({"msg": message, "created": 1e9 + at})
        return limit.filter(record), getattr(record, "left_out", 0)

    assert [write(n / 1000) for n in range(logs.BURST)] == [(True, 0)] * logs.BURST
    assert [write(1 + n / 1000) for n in range(30)] == [(False, 0)] * 30
    assert write(2, "another") == (True, 0)
    assert write(logs.WINDOW_S + 1) == (True, 30)


def test_the_level_holds(capsys):
    logs.set_up(level="error")
    logging.getLogger("x").warning("no")
    logging.getLogger("x").error("yes")
    assert capsys.readouterr().err.count("\n") == 1
    assert sys.stderr is not None
