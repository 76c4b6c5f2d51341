"""Server-sent events to a client that may be slow, silent or gone.

Errors before the first event are ordinary responses; after it, an error event ends the stream.
While nothing comes a comment says that the stream lives. A client that leaves, or does not read,
ends what is being done for it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send

from r2reasoner.chat import DONE, Refusal, event
from r2reasoner.errors import R2Error
from r2reasoner.gateway.answers import Writer, full_usage, r2_block
from r2reasoner.gateway.errors import error_response, refusal_of, shutting_down
from r2reasoner.gateway.parts import Delta, Done, Parts, Progress

KEEP_ALIVE: Final = b": keep-alive\n\n"


async def as_events(
    parts: Parts, writer: Writer, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Yield an answer as the events of a stream. Raises what `parts` raises before the first.

    The chunk that ends a choice waits for the bill, because clients take every chunk but the one
    with the usage to have a choice.
    """
    begun = False
    held: list[dict[str, Any]] = []
    try:
        async for part in parts:
            if not begun and not (isinstance(part, Delta) and _has_role(part)):
                yield writer.delta({"role": "assistant", "content": ""})
            begun = True
            match part:
                case Progress(text=text):
                    yield writer.delta({"reasoning_content": text})
                case Delta(choices=choices):
                    if held:
                        yield writer.chunk(held)
                    held = choices if _ends(part) else []
                    if not held:
                        yield writer.chunk(choices)
                case Done():
                    yield writer.chunk(held or part.finish, {"r2": r2_block(part, writer.pool)})
                    if include_usage:
                        yield writer.chunk([], {"usage": full_usage(part.usage)})
                    yield DONE
    except (Refusal, R2Error) as error:
        refusal = refusal_of(error)
        if not begun:
            raise refusal from None
        if held:
            yield writer.chunk(held)
        yield error_events(refusal)
    finally:
        await parts.aclose()


def error_events(refusal: Refusal) -> bytes:
    """Return what ends a stream with an error."""
    return event(refusal.as_object()) + DONE


def _ends(part: Delta) -> bool:
    return any(choice.get("finish_reason") for choice in part.choices)


def _has_role(part: Delta) -> bool:
    return any("role" in (choice.get("delta") or {}) for choice in part.choices)


class EventStream:
    """A response of server-sent events.

    `failed` writes the end of a stream that breaks off after something was sent.
    """

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        *,
        keep_alive_s: float,
        write_timeout_s: float,
        failed: Callable[[Refusal], bytes] = error_events,
    ) -> None:
        self._source = source
        self._more = headers
        self._headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **headers,
        }
        self._keep_alive_s = keep_alive_s
        self._write_timeout_s = write_timeout_s
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        gone = asyncio.create_task(until_gone(receive))
        try:
            await self._run(scope, receive, send, gone)
        except TimeoutError:
            pass  # nobody reads: the connection is dropped, because the response has no end
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            await self._source.aclose()

    async def _run(
        self, scope: Scope, receive: Receive, send: Send, gone: "asyncio.Task[None]"
    ) -> None:
        begun = False
        while True:
            coming = asyncio.ensure_future(anext(self._source, None))
            try:
                while not coming.done():
                    await asyncio.wait(
                        {coming, gone},
                        timeout=self._keep_alive_s,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    if gone.done():
                        return
                    if not coming.done():
                        begun = await self._send(send, KEEP_ALIVE, begun=begun)
                chunk = await coming
            except (Refusal, asyncio.CancelledError) as why:  # cancelled: the gateway ends
                refusal = why if isinstance(why, Refusal) else shutting_down()
                if begun:
                    await self._send(send, self._failed(refusal), begun=True)
                    break
                refusal.headers = {**refusal.headers, **self._more}
                await error_response(refusal)(scope, receive, send)
                return
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
                elif not coming.cancelled():
                    coming.exception()  # counts as seen, where the client left at that moment
            if chunk is None:
                break
            begun = await self._send(send, chunk, begun=begun)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, data: bytes, *, begun: bool) -> bool:
        async with asyncio.timeout(self._write_timeout_s):
            if not begun:
                headers = [(k.encode(), v.encode()) for k, v in self._headers.items()]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": data, "more_body": True})
        return True


async def until_gone(receive: Receive) -> None:
    """Return when the client has left."""
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return


async def unless_gone(receive: Receive, work: Any) -> Any:
    """Return what a coroutine returns, or None when the client left first: then it is cancelled."""
    here = asyncio.current_task()
    assert here is not None
    is_over = has_left = False

    def leave(watch: "asyncio.Task[None]") -> None:
        nonlocal has_left
        if not (is_over or watch.cancelled()):
            has_left = here.cancel()

    gone = asyncio.create_task(until_gone(receive))
    gone.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if not has_left or here.cancelling() > 1:
            raise
        return None
    finally:
        is_over = True
        if has_left:
            here.uncancel()
        gone.cancel()
