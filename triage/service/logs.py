"""Log lines: JSON, one object a line, without patient data.

Our own messages hold ids of ours, counts and codes. What a library says may hold whatever a header
said, and so may the text of an exception: of the former only the place is logged, of the latter
the type and the places it went through. TRIAGE_DEBUG=1 logs all.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from triage.settings import Settings

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
OURS = ("triage", "uvicorn")  # uvicorn's messages are fixed texts and ports
QUIET = ("pynetdicom", "pydicom", "alembic", "dbos", "uvicorn.access", "httpx", "httpcore")
FRAMES = 25  # the innermost ones


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Every logger of this process writes to `stream` (stderr), in the format of the settings."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(settings.log_format == "json", settings.debug))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if settings.debug else logging.INFO)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    dbos = logging.getLogger("dbos")  # it adds a handler of its own where it finds none
    dbos.handlers[:], dbos.propagate = [handler], False
    if not settings.debug:
        warnings.simplefilter("ignore")  # pydicom's quote the values of headers


class Lines(logging.Formatter):
    """`as_json`: objects; else the same fields for people. `whole`: with libraries' messages and
    exceptions' texts."""

    def __init__(self, as_json: bool = True, whole: bool = False) -> None:
        super().__init__()
        self.as_json, self.whole = as_json, whole

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._message(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = self._exception(record.exc_info[1])
        if self.as_json:
            return json.dumps(entry, ensure_ascii=True)
        return _for_people(entry)

    def _message(self, record: logging.LogRecord) -> str:
        if self.whole or record.name.partition(".")[0] in OURS:
            return record.getMessage()
        return f"{record.module}:{record.lineno}"

    def _exception(self, error: BaseException) -> list[dict[str, Any]]:
        """The error and its causes, innermost last."""
        chain: list[dict[str, Any]] = []
        seen: BaseException | None = error
        while seen is not None and len(chain) < 5:
            frames = traceback.extract_tb(seen.__traceback__)[-FRAMES:]
            found: dict[str, Any] = {
                "type": type(seen).__name__,
                "at": [f"{_short(f.filename)}:{f.lineno} {f.name}" for f in frames],
            }
            if self.whole:
                found["text"] = str(seen)
            chain.append(found)
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        return chain


def _short(path: str) -> str:
    """Without what is before the package: homes hold names of people."""
    for folder in ("/site-packages/", "/triage/"):
        if folder in path:
            kept = path.rpartition(folder)[2]
            return f"triage/{kept}" if folder == "/triage/" else kept
    return path.rpartition("/")[2]


def _for_people(entry: dict[str, Any]) -> str:
    text = "".join(c if c.isprintable() else " " for c in entry["message"])
    lines = [f"{entry['time']} {entry['level']} {entry['logger']}: {text}"]
    for error in entry.get("exception", ()):
        lines.append(f"  {error['type']}: {error.get('text', '')}".rstrip(": "))
        lines += [f"    {place}" for place in error["at"]]
    return "\n".join(lines)
