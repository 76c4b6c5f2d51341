"""What the fake provider can do wrong, and how a run is told when to do it.

Two faults are of an address, not of a request: `closed_port` refuses connections and
`unreachable` lets them time out.
"""

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeAlias

from r2reasoner.errors import ConfigError
from r2reasoner.mock.answers import ChatCall


class Fault(StrEnum):
    """How one request goes wrong.

    The numbers are HTTP statuses. `wrong_usage` reports and bills ten times what was used, as a
    provider may; `no_done` concerns streams only.
    """

    RESET_BEFORE_HEADERS = "reset_before_headers"
    STALL_BEFORE_HEADERS = "stall_before_headers"
    STALL_MID_STREAM = "stall_mid_stream"
    DRIP = "one_byte_a_second"
    HALF_CLOSE_MID_CHUNK = "half_close_mid_chunk"
    RESET_MID_CHUNK = "reset_mid_chunk"
    NO_DONE = "no_done"
    NO_FINISH_REASON = "no_finish_reason"
    SLOW_FIRST_TOKEN = "slow_first_token"

    REDIRECT = "307"
    BAD_REQUEST = "400"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    REQUEST_TIMEOUT = "408"
    CONFLICT = "409"
    TOO_LARGE = "413"
    UNPROCESSABLE = "422"
    RATE_LIMITED = "429"
    RATE_LIMITED_SECONDS = "429_seconds"
    RATE_LIMITED_DATE = "429_date"
    RATE_LIMITED_ABSURD = "429_absurd"
    SERVER_ERROR = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"
    OVERLOADED = "529"

    ERROR_IN_200 = "error_in_200"
    HTML = "html"
    TRUNCATED_JSON = "truncated_json"
    GARBAGE_JSON = "garbage_json"
    INVALID_UTF8 = "invalid_utf8"
    EMPTY = "empty_answer"
    WRONG_USAGE = "wrong_usage"
    MISSING_USAGE = "missing_usage"
    NEGATIVE_USAGE = "negative_usage"
    TOO_LONG = "longer_than_max_tokens"
    UNKNOWN_FINISH = "unknown_finish_reason"
    TOOL_CALL = "tool_call"

    @property
    def status(self) -> int | None:
        """The HTTP status it answers with, if that is the fault."""
        head = self.value[:3]
        return int(head) if head.isdigit() else None

    @classmethod
    def named(cls, name: str) -> "Fault":
        """Return a fault by its name. Raises ConfigError listing the names."""
        try:
            return cls(name)
        except ValueError:
            raise ConfigError(f"no fault {name!r}; there are: {', '.join(cls)}") from None


class Ending(StrEnum):
    """What happens to the connection after a cut."""

    CLOSE = "close"
    HALF_CLOSE = "half_close"
    RESET = "reset"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Cut:
    """Break off after so many bytes of the body.

    Without `chunked`, a stream is sent with nothing but the closed connection to mark its end,
    so that only the format itself can show a cut.
    """

    after: int
    ending: Ending = Ending.CLOSE
    chunked: bool = True


Trouble: TypeAlias = Fault | Cut
Script: TypeAlias = Callable[[ChatCall], Trouble | None]


def as_script(faults: Script | Iterable[Trouble | None] | None) -> Script:
    """Return a script: a callable as it is; a queue gives one fault a request, then none."""
    if callable(faults):
        return faults
    queue = iter(faults or ())
    return lambda _: next(queue, None)


def random_faults(rate: float, seed: int, kinds: Sequence[Trouble] = tuple(Fault)) -> Script:
    """Return a script that gives a share `rate` of requests a fault, drawn in order of arrival."""
    rng = Random(seed)

    def draw(_: ChatCall) -> Trouble | None:
        return rng.choice(kinds) if rng.random() < rate else None

    return draw


@contextmanager
def closed_port(host: str = "127.0.0.1") -> Iterator[str]:
    """Give a base URL where connections are refused."""
    with socket.socket() as bound:  # bound but not listening: nobody else gets the port
        bound.bind((host, 0))
        yield f"http://{host}:{bound.getsockname()[1]}/v1"


@contextmanager
def unreachable(host: str = "127.0.0.1") -> Iterator[str]:
    """Give a base URL where connections time out: its queue is full and nobody accepts (Linux)."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                with suppress(BlockingIOError):
                    filler.connect(listener.getsockname())
            yield f"http://{host}:{listener.getsockname()[1]}/v1"
        finally:
            for filler in fillers:
                filler.close()
