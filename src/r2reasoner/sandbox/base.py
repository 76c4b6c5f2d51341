"""What a sandbox does, and which one this machine can have."""

from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar, Final, NamedTuple

from r2reasoner.errors import ConfigError

MIB: Final = 2**20


class Ran(NamedTuple):
    """What a run printed and how it ended: all of it is data that the run's code chose.

    `timed_out` is True when the run was killed for the time it took. `exit_code` is 0 only where
    the code came to its end; a killed run has a code too, above 128 or negative.
    """

    stdout: str
    stderr: str
    timed_out: bool
    exit_code: int


class Sandbox(ABC):
    """Runs Python text with no network, no files, no environment and nothing left over."""

    name: ClassVar[str]

    @staticmethod
    def best() -> "Sandbox":
        """Return the strongest sandbox that really runs here, found once per process.

        Raises ConfigError, saying what to install, where there is none.
        """
        return _best()

    @abstractmethod
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
        """Run Python text to its end or to a limit, and return what it printed.

        `seconds` are of processor time, so that a busy machine changes no verdict; `wall_seconds`
        (without it `patience(seconds)`) end a run that waits. Printing more than `output_bytes`
        ends it too. Raises ConfigError where nothing can be started.
        """


def patience(seconds: float) -> float:
    """Return the wall time after which a run that may use so much processor time is stuck."""
    return 10 * seconds + 5


@cache
def _best() -> Sandbox:
    from r2reasoner.sandbox.bubblewrap import Bubblewrap
    from r2reasoner.sandbox.monty import MontySandbox

    reasons = []
    for kind in (Bubblewrap, MontySandbox):
        try:
            return kind.probe()
        except ConfigError as error:
            reasons.append(f"{kind.name}: {error}")
    raise ConfigError(
        "answers that must be run need a sandbox, and there is none here ("
        + "; ".join(reasons)
        + "). Install bubblewrap and util-linux (Debian: apt-get install bubblewrap), or "
        "pydantic-monty (pip install 'r2reasoner[evaluation]')"
    )
