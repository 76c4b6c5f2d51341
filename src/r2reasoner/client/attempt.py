"""One attempt at a model over HTTP: from its ledger entry to its settlement, exactly one each.

What could have been billed and was not reported is charged at its bound. No error that leaves here
carries the key, nor more of a provider's words than fit a line.
"""

import asyncio
import io
import time
from contextlib import suppress
from dataclasses import dataclass
from json import loads
from types import TracebackType
from typing import Final, Self

import aiohttp

from r2reasoner.budget import Meter, OpenCall
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.retry import fault_of, read_retry_after
from r2reasoner.client.route import Route
from r2reasoner.client.secret import Secret
from r2reasoner.client.wire import MAX_BODY_BYTES, Reply, error_text
from r2reasoner.errors import CallError, CallFault
from r2reasoner.pool.cards import Card
from r2reasoner.types import Call, CallOutcome, Usage

MAX_ERROR_BYTES: Final = 16 << 10
MAX_QUOTED_CHARS: Final = 200
ERROR_BODY_TIMEOUT_S: Final = 2.0
DRAIN_TIMEOUT_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Job:
    """One call as asked for, before any attempt. `deadline` is a `time.monotonic()` moment.

    `bound` is the most tokens that it can cost.
    """

    card: Card
    request: ChatRequest
    meter: Meter
    deadline: float | None
    body: bytes
    bound: Usage
    stream: bool = False

    def has_time_for(self, seconds: float) -> bool:
        """Return whether the deadline is further away than that."""
        return self.deadline is None or time.monotonic() + seconds < self.deadline


class Attempt:
    """One dispatched call: from its ledger entry to its settlement, which comes exactly once.

    As a context manager it settles whatever goes wrong inside.
    """

    def __init__(
        self, route: Route, job: Job, number: int, key: Secret | None, entry: OpenCall
    ) -> None:
        self.usage: Usage | None = None
        self._route = route
        self._job = job
        self._number = number
        self._key = key
        self._entry: OpenCall | None = entry
        self._response: aiohttp.ClientResponse | None = None
        self._started = time.perf_counter()
        self._ttft_s: float | None = None

    @classmethod
    async def begin(cls, route: Route, job: Job, number: int) -> Self:
        """Wait for slots, then reserve and record. Raises what `Meter.open` does, ConfigError."""
        request = job.request
        key = route.key()
        await route.acquire(job.card)
        try:
            entry = await job.meter.open(
                job.card,
                job.bound,
                role=request.role,
                subtask=request.subtask,
                attempt=number,
                note=request.note,
            )
        except BaseException:
            route.release(job.card)
            raise
        return cls(route, job, number, key, entry)

    async def send(self, session: aiohttp.ClientSession) -> None:
        """Send the request and read the head of the answer. Raises CallError unless it is 2xx."""
        if session.closed:
            raise self._error(CallFault.CONNECT, "the client was closed")
        body = self._job.body
        failure: CallError
        try:
            self._response = response = await session.post(
                self._route.url,
                data=body if len(body) < 1 << 20 else io.BytesIO(body),
                headers=self._headers(),
                allow_redirects=False,
                timeout=self._route.timeout,
            )
            if 200 <= response.status < 300:
                return
            failure = await self._refusal(response)
        except (aiohttp.ClientError, OSError) as error:
            failure = self._broken(error)
        # Raised here, not above: aiohttp's errors hold the request's headers, so none may be
        # anyone's context.
        raise failure

    async def read(self) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raises CallError when it breaks."""
        assert self._response is not None
        failure: CallError
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            failure = self._broken(error)
        raise failure

    async def read_all(self) -> bytes:
        """Return the whole body. Raises CallError when it breaks or is absurdly long."""
        chunks = []
        size = 0
        while chunk := await self.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise self._error(
                    CallFault.MALFORMED, f"a body of more than {MAX_BODY_BYTES} bytes", billed=True
                )
        return b"".join(chunks)

    async def drain(self) -> None:
        """Read what follows the terminal marker, so that the connection can be used again."""
        with suppress(CallError, TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self.read()

    def saw_text(self) -> None:
        """Note the moment of the first text."""
        if self._ttft_s is None:
            self._ttft_s = time.perf_counter() - self._started

    def finish(self, reply: Reply) -> Completion:
        """Settle what came. Raises CallError when it is no answer."""
        finish_reason = reply.finish_reason
        if reply.fault is not None:
            error = self._error(reply.fault, reply.detail, billed=True)
            self.usage = reply.usage
            self._settle_failure(error, finish_reason)
            raise error
        call = self._settle(
            CallOutcome.OK,
            usage=reply.usage,
            finish_reason=finish_reason,
            error=self._safe(reply.doubt) if reply.doubt else None,
        )
        return Completion(
            text=reply.text,
            usage=call.usage,
            cost=call.cost,
            model=self._job.card.name,
            finish_reason=finish_reason,
            latency_s=call.latency_s,
            ttft_s=call.ttft_s,
            attempts=self._number,
            logprob=reply.logprob,
        )

    def fail(self, error: BaseException) -> None:
        """Settle a call that broke off; does nothing if it is settled."""
        if self._entry is not None:
            self._settle_failure(error, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if error is not None:
            self.fail(error)

    def _settle_failure(self, error: BaseException, finish_reason: str | None) -> None:
        outcome, usage = CallOutcome.UNKNOWN, None
        if isinstance(error, CallError) and not error.may_be_billed:
            outcome = CallOutcome.FAILED
        elif self.usage is not None:
            outcome, usage = CallOutcome.OK, self.usage
        self._settle(outcome, usage=usage, finish_reason=finish_reason, error=self._why(error))

    def _settle(
        self,
        outcome: CallOutcome,
        *,
        usage: Usage | None,
        finish_reason: str | None,
        error: str | None,
    ) -> Call:
        assert self._entry is not None
        entry, self._entry = self._entry, None
        try:
            return self._job.meter.settle(
                entry,
                outcome,
                usage=usage,
                latency_s=time.perf_counter() - self._started,
                ttft_s=self._ttft_s,
                finish_reason=finish_reason,
                error=error,
            )
        finally:
            # A body that was read to its end has given its connection back already.
            if self._response is not None and not self._response.content.at_eof():
                self._response.close()
            self._route.release(self._job.card)

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if self._job.stream else "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "r2reasoner",
            "X-R2-Role": self._job.request.role.value,
        }
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return headers

    async def _refusal(self, response: aiohttp.ClientResponse) -> CallError:
        """Return the error that a status other than 2xx stands for."""
        body = b""
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
                while len(body) < MAX_ERROR_BYTES and (chunk := await response.content.readany()):
                    body += chunk
        detail = f"the provider answered {response.status}: {_error_detail(body)}"
        if 300 <= response.status < 400:
            detail = f"the provider redirects ({response.status}), which is not followed: "
            detail += "set base_url to the final address"
        return self._error(
            fault_of(response.status),
            detail,
            status=response.status,
            retry_after_s=read_retry_after(response.headers.get("Retry-After")),
        )

    def _broken(self, error: aiohttp.ClientError | OSError) -> CallError:
        """Return the error that a broken connection stands for."""
        endpoint = self._route.endpoint
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self._error(
                CallFault.CONNECT, f"no connection within {endpoint.connect_timeout_s} s"
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            return self._error(CallFault.CONNECT, str(error))
        if isinstance(error, TimeoutError):
            detail = f"nothing came for {endpoint.read_timeout_s} s"
            return self._error(CallFault.TIMEOUT, detail, billed=True)
        if isinstance(error, aiohttp.ClientResponseError):
            detail = f"expected HTTP, got: {error.message}"
            return self._error(CallFault.MALFORMED, detail, billed=True)
        return self._error(CallFault.CUT, "the connection broke", billed=True)

    def _error(
        self,
        fault: CallFault,
        detail: str,
        *,
        billed: bool = False,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> CallError:
        return CallError(
            fault,
            self._safe(detail),
            model=self._job.card.name,
            status=status,
            retry_after_s=retry_after_s,
            may_be_billed=billed,
        )

    def _safe(self, text: str) -> str:
        """Return a text that may quote the provider as one that may be shown."""
        if self._key is not None:  # before the cut, which could leave half a key
            text = self._key.redact(text)
        return _quoted(text)

    def _why(self, error: BaseException) -> str:
        if isinstance(error, CallError):
            return str(error)
        late = not self._job.has_time_for(0)
        return "broken off at the deadline" if late else f"broken off: {type(error).__name__}"


def _error_detail(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        value = loads(text)
        return error_text(value) if isinstance(value, dict) else text
    return text or "(no text)"


def _quoted(text: str) -> str:
    """Return a provider's text on one line, without control characters, cut to 200."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:4096]).split())
    return line if len(line) <= MAX_QUOTED_CHARS else line[: MAX_QUOTED_CHARS - 1] + "…"
