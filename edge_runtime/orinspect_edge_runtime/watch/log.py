"""The log of a watch, on stderr: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone


class JsonFormatter(logging.Formatter):
    """`time` (ISO 8601, UTC), `level`, `message`, and `error` with the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        told = {"time": at, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told)


FORMATTERS: dict[str, logging.Formatter] = {
    "text": logging.Formatter("%(levelname)s %(message)s"),
    "json": JsonFormatter(),
}


def begin_log(form: str) -> None:
    """Log what matters to stderr from now on. form: of FORMATTERS."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[form])
    logging.basicConfig(handlers=[handler], level=logging.INFO)
