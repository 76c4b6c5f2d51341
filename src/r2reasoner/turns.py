"""Which of a conversation's earlier turns a model is sent, where not all of them fit.

System turns always stay, then the newest turns that fit. Nobody's tokenizer is known here, so a
token is taken for BYTES_PER_TOKEN bytes; where that is too few, the provider refuses the call. What
is left out is dropped whole, in steps, so that the turns that are sent begin alike for a while:
providers cache what calls have in common at their beginning.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from r2reasoner.types import Message

BYTES_PER_TOKEN: Final = 3
STEPS: Final = 4
"""What is left out grows in steps of the room divided by this."""
CUT: Final = "\n[…]\n"


def size(*turns: Message) -> int:
    """Return how many bytes turns have."""
    return sum(len(turn.content.encode("utf-8", "surrogatepass")) for turn in turns)


def room(context: int, answer: int, rest: int) -> int:
    """Return how many bytes of conversation fit into a context beside an answer and the rest.

    `context` and `answer` are tokens, `rest` is bytes.
    """
    return max(0, BYTES_PER_TOKEN * (context - answer) - rest)


def newest(earlier: Sequence[Message], room: int) -> tuple[Message, ...]:
    """Return all turns where they fit into `room` bytes, else the system turns and the newest.

    The first that is kept is no answer.
    """
    places = [i for i, turn in enumerate(earlier) if turn.role != "system"]
    sizes = [size(earlier[i]) for i in places]
    left = max(0, room - (size(*earlier) - sum(sizes)))
    over = sum(sizes) - left
    if over <= 0:
        return tuple(earlier)
    step = max(1, left // STEPS)
    over = -(-over // step) * step
    first = 0
    while first < len(places) and (over > 0 or earlier[places[first]].role == "assistant"):
        over -= sizes[first]
        first += 1
    dropped = set(places[:first])
    return tuple(turn for i, turn in enumerate(earlier) if i not in dropped)


def shortened(turn: Message, most: int) -> Message:
    """Return a turn with its middle left out where it has more than `most` characters."""
    text = turn.content
    if len(text) <= most:
        return turn
    return replace(turn, content=f"{text[: most // 2]}{CUT}{text[-(most // 2) :]}")
