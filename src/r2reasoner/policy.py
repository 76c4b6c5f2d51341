"""What trained policies read and write beside plans: the dial's token, and tokens of models.

A policy in the line format reads `t<level>` before the text, where the dial `trade_off` is cut
into as many levels as it was trained with; an allocator writes `m<k>`, the k-th worker it knows.
"""

import re
from collections.abc import Sequence
from typing import Final

from r2reasoner.errors import PlanError, PlanFault
from r2reasoner.pool.cards import Card

_MODEL: Final = re.compile(r"m([0-9]{1,2})")


def level(trade_off: float, dial: int) -> int:
    """Return the level (0 to dial - 1) that is nearest to a setting of the dial."""
    return round(trade_off * (dial - 1))


def asked(card: Card, trade_off: float, text: str) -> str:
    """Return what a policy is asked: the text, after the dial's level where it reads one."""
    return f"t{level(trade_off, card.dial)} {text}" if card.dial else text


def model_token(name: str, knows: Sequence[str]) -> str:
    """Return the token that stands for a worker. Raises ValueError for one that is not known."""
    return f"m{knows.index(name) + 1}"


def read_model(text: str, knows: Sequence[str]) -> str:
    """Return the worker that an allocator wrote. Raises PlanError (UNREADABLE, UNKNOWN_MODEL)."""
    match = _MODEL.fullmatch(text.strip())
    if match is None:
        raise PlanError(PlanFault.UNREADABLE, f"expected one model token, got {text[:40]!r}")
    number = int(match.group(1))
    if not 1 <= number <= len(knows):
        raise PlanError(PlanFault.UNKNOWN_MODEL, f"{text.strip()} of {len(knows)} models")
    return knows[number - 1]
