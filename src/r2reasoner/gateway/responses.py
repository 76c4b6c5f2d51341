"""POST /v1/responses: OpenAI's Responses API over what answers chat completions."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from r2reasoner.chat import Refusal
from r2reasoner.errors import R2Error
from r2reasoner.gateway.answers import Writer, full_usage, r2_block
from r2reasoner.gateway.errors import refusal_of
from r2reasoner.gateway.parts import Delta, Done, Part, Parts, Progress
from r2reasoner.gateway.responses_events import Event, Growing
from r2reasoner.gateway.responses_wire import read_response_request
from r2reasoner.gateway.wire import Asked


@dataclass(slots=True)
class Responses:
    """A request to /v1/responses. `repeated` are the fields that its response repeats."""

    asked: Asked
    repeated: Mapping[str, Any]
    _streamed: Growing | None = None

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Read a request's body. Raises Refusal."""
        return cls(*read_response_request(body))

    def whole(self, completion: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the response. Raises Refusal (502) where a tool call is none."""
        *_, last = self._of(completion).tell(completion)
        response: Mapping[str, Any] = last["response"]
        return response

    async def events(self, parts: Parts, writer: Writer) -> AsyncGenerator[bytes, None]:
        """Yield typed events. Raises what `parts` raises before the first."""
        growing = self._streamed = self._new(writer)
        begun = False
        try:
            async for part in parts:
                if not begun:
                    begun = True
                    yield growing.encode(growing.begin())
                if told := growing.encode(_events_of(part, growing, writer)):
                    yield told
        except (Refusal, R2Error) as error:
            refusal = refusal_of(error)
            if not begun:
                raise refusal from None
            yield growing.encode(growing.fail(refusal))
        finally:
            await parts.aclose()

    def again(self, completion: Mapping[str, Any]) -> bytes:
        """Return a whole answer as the events of a stream."""
        growing = self._of(completion)
        return growing.encode(growing.tell(completion))

    def failed(self, refusal: Refusal, writer: Writer) -> bytes:
        """Return the events that end what was streamed so far."""
        growing = self._streamed or self._new(writer)
        return growing.encode(growing.fail(refusal))

    def _new(self, writer: Writer) -> Growing:
        return Growing(writer.trace_id, writer.created, writer.model, self.repeated)

    def _of(self, completion: Mapping[str, Any]) -> Growing:
        trace_id = completion["r2"]["trace_id"]
        return Growing(trace_id, completion["created"], completion["model"], self.repeated)


def _events_of(part: Part, growing: Growing, writer: Writer) -> Iterator[Event]:
    match part:
        case Progress(text=text):
            yield from growing.progress(text)
        case Delta(choices=choices):
            yield from growing.take(choices)
        case Done():
            yield from growing.take(part.finish)
            yield from growing.end(full_usage(part.usage), r2_block(part, writer.pool))
