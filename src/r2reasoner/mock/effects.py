"""What each fault does to an answer, to its bytes and to where they break off."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

from r2reasoner.mock.answers import Answer, Piece, usage_object
from r2reasoner.mock.faults import Cut, Ending, Fault, Trouble
from r2reasoner.mock.http import chunk

ABSURD_RETRY_AFTER: Final = "1e9"


def error_headers(fault: Fault, base_url: str, retry_after_s: int) -> dict[str, str]:
    """Return the headers that belong to a faulty status; a redirect leads back to ourselves."""
    match fault:
        case Fault.REDIRECT:
            return {"Location": f"{base_url}/chat/completions"}
        case Fault.RATE_LIMITED_SECONDS:
            return {"Retry-After": str(retry_after_s)}
        case Fault.RATE_LIMITED_DATE:
            # An HTTP date has whole seconds: one more, so that rounding down still leaves time.
            moment = datetime.now(UTC) + timedelta(seconds=retry_after_s + 1)
            return {"Retry-After": format_datetime(moment, usegmt=True)}
        case Fault.RATE_LIMITED_ABSURD:
            return {"Retry-After": ABSURD_RETRY_AFTER}
    return {}


def distort(answer: Answer, trouble: Trouble | None) -> Answer:
    """Return the answer that a fault of its content leaves of an honest one."""
    prompt, completion = answer.billed_input, answer.billed_output
    match trouble:
        case Fault.NO_DONE:
            return replace(answer, done=False)
        case Fault.NO_FINISH_REASON:
            return replace(answer, finish_reason=None)
        case Fault.UNKNOWN_FINISH:
            return replace(answer, finish_reason="eos_of_another_kind")
        case Fault.TOOL_CALL:
            return replace(answer, tool_call=True, finish_reason="tool_calls")
        case Fault.EMPTY:
            return replace(answer, text="", billed_output=0, usage=usage_object(prompt, 0))
        case Fault.MISSING_USAGE:
            return replace(answer, usage=None)
        case Fault.NEGATIVE_USAGE:
            return replace(answer, usage=usage_object(prompt, -completion - 1))
        case Fault.WRONG_USAGE:
            prompt, completion = 10 * prompt, 10 * completion
            usage = usage_object(prompt, completion)
            return replace(answer, usage=usage, billed_input=prompt, billed_output=completion)
        case Fault.TOO_LONG:
            length = 2 * (answer.call.max_tokens or 16)
            billed = length * answer.call.choices
            usage = usage_object(prompt, billed)
            text = " ".join(["more"] * length)
            return replace(answer, text=text, usage=usage, billed_output=billed)
    return answer


def damage(pieces: Sequence[Piece], trouble: Trouble | None) -> list[Piece]:
    """Return the pieces with the one in the middle made unreadable, where that is the fault."""
    middle = _middle(pieces)
    data, tokens = pieces[middle]
    match trouble:
        case Fault.TRUNCATED_JSON:
            data = data.rstrip()[: len(data) // 2] + b"\n\n"
        case Fault.GARBAGE_JSON:
            data = b"data: {'single': quotes}\n\n" if len(pieces) > 1 else b"{'single': quotes}"
        case Fault.INVALID_UTF8:
            half = len(data) // 2
            data = data[:half] + b"\xff\xfe" + data[half:]
    return [*pieces[:middle], Piece(data, tokens), *pieces[middle + 1 :]]


def find_cut(trouble: Trouble | None, pieces: Sequence[Piece], *, stream: bool) -> Cut | None:
    """Return where a fault of the connection cuts: in the middle of the middle piece."""
    if isinstance(trouble, Cut):
        return trouble
    endings: dict[Trouble | None, Ending] = {
        Fault.STALL_MID_STREAM: Ending.STALL,
        Fault.HALF_CLOSE_MID_CHUNK: Ending.HALF_CLOSE,
        Fault.RESET_MID_CHUNK: Ending.RESET,
    }
    ending = endings.get(trouble)
    if ending is None:
        return None
    middle = _middle(pieces)
    sizes = [len(chunk(p.data) if stream else p.data) for p in pieces]
    return Cut(sum(sizes[:middle]) + sizes[middle] // 2, ending)


def _middle(pieces: Sequence[Piece]) -> int:
    """Return which piece stands in the middle of those that carry tokens, if any do."""
    carriers = [i for i, piece in enumerate(pieces) if piece.tokens] or range(len(pieces))
    return carriers[len(carriers) // 2]
