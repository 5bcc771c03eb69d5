"""The log for programs: every line is one JSON object, whatever the message holds."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime

from orinspect_edge_runtime.watch.log import FORMATTERS


def record(message: str, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message, "levelname": "WARNING", "created": 1.7e9, **fields})


def test_a_line_is_json() -> None:
    (line,) = FORMATTERS["json"].format(record('camera: "lost"\nfor %d s', args=(3,))).splitlines()
    told = json.loads(line)
    assert told.pop("time") == datetime.fromisoformat("2023-11-14T22:13:20+00:00").isoformat(timespec="milliseconds")
    assert told == {"level": "warning", "message": 'camera: "lost"\nfor 3 s'}


def test_a_traceback_stays_on_its_line() -> None:
    try:
        raise ValueError("no picture")
    except ValueError:
        (line,) = FORMATTERS["json"].format(record("it ended", exc_info=sys.exc_info())).splitlines()
    assert json.loads(line)["error"].endswith("ValueError: no picture")


def test_people_get_text() -> None:
    assert FORMATTERS["text"].format(record("camera: lost")) == "WARNING camera: lost"
