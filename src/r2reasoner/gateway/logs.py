"""The log of a server: one JSON object per line on stderr, of ours and of the libraries below.

Of an exception it has the types and the places, never the messages, which may quote a prompt, an
answer or a row of the ledger. What a library says comes without the values put into it.
"""

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any, Final

LOG: Final = logging.getLogger("r2reasoner.server")
LINES: Final = "r2reasoner.gateway"
"""Loggers below this write whole lines of JSON."""
KNOWN: Final = ("r2reasoner", "uvicorn")
"""Loggers whose texts have no content of requests in them."""
MOST_CAUSES: Final = 5
MOST_PLACES: Final = 20


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        if record.name.startswith(LINES) and record.exc_info is None:
            return record.getMessage()
        told: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "place": f"{record.module}:{record.lineno}",
        }
        if record.name.startswith(KNOWN):
            told["message"] = record.getMessage().strip()
        elif record.args:
            told["message"] = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        return json.dumps(told if error is None else told | failure(error))


def failure(error: BaseException) -> dict[str, Any]:
    """Return what may be said of an exception: its type and where it was, and its causes'."""
    first, *causes = [
        {"error": f"{type(each).__module__}.{type(each).__qualname__}", "where": _places(each)}
        for each in _chain(error)
    ]
    return first | ({"causes": causes} if causes else {})


@contextmanager
def log_to_stderr(level: str, *, requests: bool) -> Iterator[None]:
    """Write lines from a level on; `requests`: one for each request too.

    Takes over what Python and the libraries would write to stderr by themselves. The libraries
    stay at warnings, because some of them would log the statements or the heads that they send.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    levels: dict[str, int | str] = {
        "": logging.WARNING,
        "r2reasoner": level.upper(),
        "uvicorn": logging.DEBUG if level == "debug" else logging.WARNING,
        LINES: logging.NOTSET if requests else logging.WARNING,
    }
    root = logging.getLogger()
    before = {name: logging.getLogger(name).level for name in levels}
    handlers, root.handlers = root.handlers, [handler]
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    sys.excepthook = lambda kind, error, tb: _log("uncaught", error)
    sys.unraisablehook = lambda args: _log("uncaught while cleaning up", args.exc_value)
    threading.excepthook = lambda args: _log("uncaught in a thread", args.exc_value)
    try:
        for name, each in levels.items():
            logging.getLogger(name).setLevel(each)
        yield
    finally:
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
        root.handlers = handlers
        for name, each in before.items():
            logging.getLogger(name).setLevel(each)


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Have what nobody caught in a loop logged here; asyncio would write its message."""
    loop.set_exception_handler(
        lambda _, context: _log("uncaught in the event loop", context.get("exception"))
    )


def _log(message: str, error: BaseException | None) -> None:
    LOG.error(message, exc_info=error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if each is None:
            return
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _places(error: BaseException) -> list[str]:
    frames = [
        (frame.f_globals.get("__name__"), frame.f_code.co_qualname, line)
        for frame, line in walk_tb(error.__traceback__)
    ]
    return [f"{module}:{line} {name}" for module, name, line in frames[-MOST_PLACES:]]
