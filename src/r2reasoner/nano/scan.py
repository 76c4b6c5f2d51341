"""SCAN: the published grammar, its interpretation, and the official splits.

Lake & Baroni 2018, "Generalization without systematicity". The grammar is finite (20,910
commands), so the splits `length` and `addprim_jump` are regenerated here instead of shipped;
`simple` is a random split and can only be read from its official files.
"""

from itertools import product
from typing import Final

VERBS: Final = ("walk", "look", "run", "jump")
DIRECTIONS: Final = ("left", "right")
REPEATS: Final = {"twice": 2, "thrice": 3}
LONGEST_TRAINING_ACTIONS: Final = 22
SPLITS: Final = ("simple", "length", "addprim_jump")

WORDS: Final = (*VERBS, "turn", *DIRECTIONS, "opposite", "around", *REPEATS, "and", "after")
ACTIONS: Final = (*(f"I_{verb.upper()}" for verb in VERBS), "I_TURN_LEFT", "I_TURN_RIGHT")


def interpret(command: str) -> str:
    """Return the action sequence of a command, as space-separated `I_*` tokens.

    Raises ValueError when the text is no SCAN command.
    """
    words = command.split()
    for conjunction in ("and", "after"):
        if conjunction in words:
            at = words.index(conjunction)
            left, right = _phrase(words[:at]), _phrase(words[at + 1 :])
            return " ".join(left + right if conjunction == "and" else right + left)
    return " ".join(_phrase(words))


def _phrase(words: list[str]) -> list[str]:
    """Interpret `VERB [[opposite|around] DIRECTION] [twice|thrice]`."""
    repeat = 1
    if words and words[-1] in REPEATS:
        repeat, words = REPEATS[words[-1]], words[:-1]
    match words:
        case [verb] if verb in VERBS:
            once = [_act(verb)]
        case [verb, direction] if direction in DIRECTIONS:
            once = [_turn(direction), *_act_or_nothing(verb)]
        case [verb, "opposite", direction] if direction in DIRECTIONS:
            once = [_turn(direction)] * 2 + _act_or_nothing(verb)
        case [verb, "around", direction] if direction in DIRECTIONS:
            once = [_turn(direction), *_act_or_nothing(verb)] * 4
        case _:
            raise ValueError(f"no SCAN phrase: {' '.join(words)!r}")
    return once * repeat


def _act(verb: str) -> str:
    return f"I_{verb.upper()}"


def _turn(direction: str) -> str:
    return f"I_TURN_{direction.upper()}"


def _act_or_nothing(verb: str) -> list[str]:
    if verb == "turn":
        return []
    if verb not in VERBS:
        raise ValueError(f"no SCAN verb: {verb!r}")
    return [_act(verb)]


def phrases() -> list[str]:
    """Return every phrase without a conjunction, in a fixed order (102 of them)."""
    directed = [
        " ".join(filter(None, (verb, manner, direction)))
        for verb, manner, direction in product(
            (*VERBS, "turn"), ("", "opposite", "around"), DIRECTIONS
        )
    ]
    return [
        f"{once} {repeat}".strip() for once, repeat in product([*VERBS, *directed], ("", *REPEATS))
    ]


def commands() -> list[str]:
    """Return all 20,910 commands, in a fixed order."""
    single = phrases()
    return single + [
        f"{left} {conjunction} {right}"
        for conjunction, left, right in product(("and", "after"), single, single)
    ]


def split(name: str) -> tuple[list[str], list[str]]:
    """Return (training commands, test commands) of an official split.

    Raises ValueError for `simple`, which is random and cannot be regenerated.
    """
    if name == "length":

        def is_test(command: str) -> bool:
            return len(interpret(command).split()) > LONGEST_TRAINING_ACTIONS
    elif name == "addprim_jump":

        def is_test(command: str) -> bool:
            return "jump" in command.split() and command != "jump"
    else:
        raise ValueError(
            f"the SCAN split {name!r} cannot be regenerated; known: length, addprim_jump"
        )
    everything = commands()
    return [c for c in everything if not is_test(c)], [c for c in everything if is_test(c)]
