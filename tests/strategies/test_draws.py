from dataclasses import replace

import pytest

import toy_pool
from r2reasoner.config import settings
from r2reasoner.strategies.draws import draws

PLAIN = toy_pool.pool("http://127.0.0.1:1/v1")
CHAT = replace(PLAIN, workers=tuple(replace(card, prompt="chat") for card in PLAIN.workers))


@pytest.mark.parametrize(
    ("name", "of_plain", "of_chat"),
    [
        ("random", True, True),
        ("tot", False, True),
        ("automix@0.7", False, True),
        ("r2", False, False),
        ("r2@0.5", False, False),
        ("single:large", False, False),
        ("somebodys-own", True, True),
    ],
)
def test_what_draws(name: str, of_plain: bool, of_chat: bool) -> None:
    assert draws(name, PLAIN, settings()) is of_plain
    assert draws(name, CHAT, settings()) is of_chat


def test_everything_draws_at_a_temperature() -> None:
    assert draws("single:large", PLAIN, replace(settings(), temperature=0.7))
