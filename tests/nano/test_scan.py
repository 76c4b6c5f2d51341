import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.nano import scan

SHARED = Path(__file__).parents[3] / "shared" / "data" / "scan"
PHRASES = st.sampled_from(scan.phrases())

# From the paper's figure of the grammar, written out by hand.
PUBLISHED = {
    "jump": "I_JUMP",
    "turn left": "I_TURN_LEFT",
    "jump left": "I_TURN_LEFT I_JUMP",
    "jump around right": " ".join(["I_TURN_RIGHT I_JUMP"] * 4),
    "turn left twice": "I_TURN_LEFT I_TURN_LEFT",
    "jump thrice": "I_JUMP I_JUMP I_JUMP",
    "jump opposite left and walk thrice": "I_TURN_LEFT I_TURN_LEFT I_JUMP I_WALK I_WALK I_WALK",
    "jump opposite left after walk around left": " ".join(
        ["I_TURN_LEFT I_WALK"] * 4 + ["I_TURN_LEFT I_TURN_LEFT I_JUMP"]
    ),
    "turn around left": "I_TURN_LEFT I_TURN_LEFT I_TURN_LEFT I_TURN_LEFT",
}


@pytest.mark.parametrize(("command", "actions"), PUBLISHED.items())
def test_published_examples(command: str, actions: str) -> None:
    assert scan.interpret(command) == actions


def test_the_grammar_has_the_published_size() -> None:
    commands = scan.commands()
    assert len(scan.phrases()) == len(set(scan.phrases())) == 102
    assert len(commands) == len(set(commands)) == 20_910
    assert max(len(scan.interpret(command).split()) for command in commands) == 48


@pytest.mark.parametrize(
    ("name", "training", "test"), [("length", 16_990, 3_920), ("addprim_jump", 13_204, 7_706)]
)
def test_splits_have_their_official_sizes_and_share_nothing(
    name: str, training: int, test: int
) -> None:
    seen, unseen = scan.split(name)
    assert (len(seen), len(unseen)) == (training, test)
    assert not set(seen) & set(unseen)


def test_the_length_split_cuts_at_22_actions() -> None:
    seen, unseen = scan.split("length")
    assert max(len(scan.interpret(command).split()) for command in seen) == 22
    assert min(len(scan.interpret(command).split()) for command in unseen) == 24


def test_jump_is_trained_alone() -> None:
    seen, unseen = scan.split("addprim_jump")
    assert [command for command in seen if "jump" in command.split()] == ["jump"]
    assert all("jump" in command.split() for command in unseen)


def test_the_random_split_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="cannot be regenerated"):
        scan.split("simple")


@pytest.mark.parametrize("name", ["length", "addprim_jump"])
def test_the_official_rows_stand_on_the_test_side(name: str) -> None:
    file = SHARED / f"{name}_test.jsonl"
    if not file.exists():
        pytest.skip("the official SCAN rows are not beside this checkout")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    unseen = set(scan.split(name)[1])
    assert len(rows) > 2000
    assert all(row["command"] in unseen for row in rows)
    assert all(scan.interpret(row["command"]) == row["actions"] for row in rows)


@given(PHRASES, PHRASES)
def test_a_conjunction_puts_actions_side_by_side(first: str, second: str) -> None:
    one, two = scan.interpret(first), scan.interpret(second)
    assert scan.interpret(f"{first} and {second}") == f"{one} {two}"
    assert scan.interpret(f"{first} after {second}") == f"{two} {one}"


@given(st.sampled_from([p for p in scan.phrases() if p.split()[-1] not in scan.REPEATS]))
def test_a_repetition_repeats(phrase: str) -> None:
    once = scan.interpret(phrase)
    assert scan.interpret(f"{phrase} twice") == f"{once} {once}"
    assert scan.interpret(f"{phrase} thrice") == f"{once} {once} {once}"


@given(st.lists(st.sampled_from([*scan.WORDS, "hop", "#1"]), max_size=8).map(" ".join))
def test_any_words_are_a_command_or_refused(text: str) -> None:
    try:
        actions = scan.interpret(text)
    except ValueError:
        return
    assert set(actions.split()) <= set(scan.ACTIONS)
    if len(text.split()) <= 4 and not {"and", "after"} & set(text.split()):
        assert text in scan.phrases()
