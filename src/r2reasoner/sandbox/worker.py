"""A jailed service that answers JSON lines: what takes seconds to import is imported once.

The service's text reads one JSON value a line and prints one a line. An answer that is late, or no
JSON, ends the process; the next question starts another. Only bubblewrap can hold a service.
"""

import atexit
import contextlib
import json
import selectors
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any, Final

from r2reasoner.errors import ConfigError
from r2reasoner.sandbox import process
from r2reasoner.sandbox.base import MIB, Sandbox
from r2reasoner.sandbox.bubblewrap import PACKAGES, Bubblewrap, Jail, Limits, Package

READY: Final = "ready"
START_SECONDS: Final = 300.0
MAX_REPLY_BYTES: Final = MIB


class Worker:
    """A long-lived service in a jail, started at its first question. Safe to use from threads.

    `source` is the service's Python text; it prints `"ready"` (as JSON) once it can answer.
    `distributions` are the installed packages that it may import. It may have `processes`
    processes, each of up to `memory_bytes`.
    """

    def __init__(
        self,
        source: str,
        *,
        distributions: Sequence[str] = (),
        memory_bytes: int = 1024 * MIB,
        processes: int = 1,
    ) -> None:
        self._source = f"import sys\nsys.path.append({PACKAGES!r})\n{source}"
        self._distributions = tuple(distributions)
        self._limits = Limits(memory_bytes, processes=processes)
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self.starts = 0
        atexit.register(self.close)

    def ask(self, question: Any, *, seconds: float) -> Any:
        """Return the service's answer, or None when none came within `seconds`.

        The time to start is not counted. Raises ConfigError where no service can be started.
        """
        line = json.dumps(question).encode() + b"\n"
        with self._lock:
            if self._child is not None and self._child.poll() is not None:
                self._stop()
            if self._child is None:
                self._start()
            reply = self._answer(line, seconds)
            if reply is None:
                self._stop()
            return reply

    def close(self) -> None:
        """End the service, if one runs."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        jail = _jail()
        packages = _packages(self._distributions)
        with ExitStack() as stack:
            argv, fds = stack.enter_context(jail.command(self._source, self._limits, packages))
            try:
                self._child = process.spawn(argv, stderr=subprocess.DEVNULL, fds=fds)
            except OSError as error:
                raise ConfigError(f"{argv[0]} cannot be started: {error.strerror}") from error
            self.starts += 1
            if self._answer(b"", START_SECONDS) != READY:
                self._stop()
                raise ConfigError(
                    f"the service with {', '.join(self._distributions) or 'no packages'} "
                    "did not start in its sandbox"
                )

    def _stop(self) -> None:
        if self._child is not None:
            process.end(self._child)
            self._child = None

    def _answer(self, line: bytes, seconds: float) -> Any:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        deadline = time.monotonic() + seconds
        reply = bytearray()
        try:
            # The service reads a whole line before it answers, so writing cannot block for good.
            child.stdin.write(line)
            with selectors.DefaultSelector() as ready:
                ready.register(child.stdout, selectors.EVENT_READ)
                while not reply.endswith(b"\n") and len(reply) <= MAX_REPLY_BYTES:
                    if not ready.select(max(0.0, deadline - time.monotonic())):
                        return None
                    chunk = child.stdout.read(process.CHUNK)
                    if not chunk:
                        return None
                    reply += chunk
        except OSError:
            return None
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(reply)
        return None


def _jail() -> Jail:
    sandbox = Sandbox.best()
    if not isinstance(sandbox, Bubblewrap):
        raise ConfigError(
            "math-verify needs bubblewrap, which was not found or does not run here; "
            "on Debian: apt-get install bubblewrap"
        )
    return sandbox.jail


def _packages(distributions: Sequence[str]) -> list[Package]:
    """Return the top-level files and folders that installed packages consist of."""
    found: dict[str, Path] = {}
    for name in distributions:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise ConfigError(
                f"{name} is not installed: pip install 'r2reasoner[evaluation]'"
            ) from None
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__", "/"):
                found[top] = Path(str(distribution.locate_file(top)))
    return [Package(name, path) for name, path in sorted(found.items()) if path.exists()]
