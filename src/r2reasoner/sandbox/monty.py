"""Python text in Monty, an interpreter of a Python subset that has no way out to leave open.

The fall-back where there is no bubblewrap. Much of the standard library is missing there, so that
an answer may fail that CPython would have run; it cannot pass by that. Leaves out: standard input.
"""

import importlib.util
from typing import Any, ClassVar, Final

from r2reasoner.errors import ConfigError
from r2reasoner.sandbox.base import MIB, Ran, Sandbox

GRACE_SECONDS: Final = 1.0


class MontySandbox(Sandbox):
    """Python text in a Monty worker process, a new session for every run."""

    name: ClassVar[str] = "pydantic-monty"

    @classmethod
    def probe(cls) -> "MontySandbox":
        """Return a sandbox that has run something. Raises ConfigError."""
        if importlib.util.find_spec("pydantic_monty") is None:
            raise ConfigError("not installed")
        made = cls()
        ran = made.run("print('isolated')", seconds=5)
        if ran.stdout != "isolated\n":
            raise ConfigError(ran.stderr[-200:])
        return made

    def run(
        self,
        source: str,
        *,
        stdin: str = "",
        seconds: float,
        wall_seconds: float | None = None,
        memory_bytes: int = 512 * MIB,
        output_bytes: int = MIB,
    ) -> Ran:
        """Run Python text; see `Sandbox.run`. Raises ConfigError for standard input too."""
        from pydantic_monty import Monty, MontyCrashedError, MontyError

        if stdin:
            raise ConfigError("Monty has no standard input; it needs bubblewrap")
        printed = _Printed(output_bytes)
        # Monty counts wall time only, and nothing in it can wait.
        limits: Any = {
            "max_feed_duration_secs": wall_seconds or 2 * seconds,
            "max_memory": memory_bytes,
        }
        code, message, late = 0, "", False
        try:
            with (
                Monty(max_processes=1, feed_duration_limit_grace=GRACE_SECONDS) as pool,
                pool.checkout(limits=limits) as session,
            ):
                session.feed_run(source, print_callback=printed)
        except MontyError as error:
            code, message = 1, str(error)
            late = isinstance(error, MontyCrashedError) and error.timed_out
            late = late or "time limit exceeded" in message
        except _Full:
            code, message = 1, "too much output"
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"Monty cannot run: {error}") from error
        stderr = (printed.text["stderr"] + message)[-output_bytes:]
        return Ran(printed.text["stdout"], stderr, late, code)


class _Full(Exception):
    pass


class _Printed:
    """Keeps what is printed, and ends the run at a limit."""

    def __init__(self, limit: int) -> None:
        self.text = {"stdout": "", "stderr": ""}
        self._left = limit

    def __call__(self, stream: str, text: str) -> None:
        self.text[stream] += text[: self._left]
        self._left -= len(text)
        if self._left < 0:
            raise _Full
