import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.benchmarks.csqa import CSQA, MOST_READ, from_hub, grade, letter_of
from r2reasoner.errors import DataError

DATA = Path(__file__).parents[3] / "shared" / "data" / "csqa"
CHOICES = {"A": "doctor", "B": "bookstore", "C": "market", "D": "train station", "E": "mortuary"}
GOLD = json.dumps({"answer": "B", "choices": CHOICES})
ROW = {"stem": "Where are magazines?", "choices": CHOICES, "answer": "B"}

RIGHT = (
    *("B", "b", "(B)", "**B**", "B.", " B\n", "B) bookstore", "(b) bookstore", "B: bookstore"),
    *("bookstore", "A bookstore.", "B. Bookstore", "The answer is B.", "the answer is b"),
    *("Answer: B", "**Answer:** B", "**Answer**: (B)", "Answer:\nB", "ANSWER: B", "answer = B"),
    *("\\boxed{B}", "$\\boxed{\\text{B}}$", "The final answer is: $\\boxed{B}$", "#### B"),
    *("The correct answer is **B. bookstore**.", "The answer is (B) bookstore", "It’s B."),
    *("The answer is bookstore.", "Answer: A bookstore", "B is correct.", "Answer: Option B"),
    *("So the best choice is a bookstore, because of the print.", "Correct option: B"),
    *("I would choose B because of the books.", "I'd go with B.", "The answer would be B"),
    "Option A is wrong. Option B is the best answer.",
    "The answer is not A, it is B",
    "The answer is A. Wait, no: the answer is B.",
    "A. doctor: no\nB. bookstore: yes\nC. market: no\n\nSo the answer is B",
    "A. doctor no\nB. bookstore yes\n\nB",
    "B\n\nBecause A doctor has few.",
    "B. Bookstore\n\nA doctor has magazines too, and a market (C) sells some.",
    "Let's think. Magazines stand along books, so B",
    "A bookstore is where magazines stand, so B",
    "The answer to the question is most likely (B).",
    '{"answer": "B"}',
    "<answer>B</answer>",
    "x" * 2 * MOST_READ + "\nAnswer: B",
)
WRONG = (
    *("", "A", "C. bookstore", "The answer is A.", "bookstores", "book", "the answer is a"),
    *("A or B", "Answer: A or B", "Answer: B, C", "A B C D E", "I don't know", "F", "BB"),
    *("The answer is not B.", "not B", "The answer isn't B", "B is incorrect", "Answer: F"),
    "The answer is B. On second thought, the answer is C.",
    "A. doctor\nB. bookstore\nC. market\nD. train station\nE. mortuary",
    "The answer is a doctor",
    "Answer: market (not B)",
)
HOSTILE = (
    *("answer is " * 20_000, "\\boxed{" * 20_000, "((((" * 20_000, "B is the most x " * 9_000),
    *("__import__('os').system('true')", "\ud800\x00", "Ｂ", "answer: " + "*" * 90_000),
)


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_is_right_however_it_is_written(answer: str) -> None:
    assert grade(answer, GOLD) is True


@pytest.mark.parametrize("answer", WRONG)
def test_a_near_miss_is_wrong(answer: str) -> None:
    assert grade(answer, GOLD) is False


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_wrong_and_nothing_more(answer: str) -> None:
    assert grade(answer, json.dumps({"answer": "E", "choices": CHOICES})) is False


@given(st.text(), st.text())
def test_no_text_makes_it_raise(answer: str, gold: str) -> None:
    assert grade(answer, gold) in (True, False, None)
    assert grade(answer, GOLD) in (True, False)


@pytest.mark.parametrize("gold", ["", "F", "{}", '{"answer": "B", "choices": 3}', "[" * 50_000])
def test_a_gold_text_without_a_letter_cannot_be_judged(gold: str) -> None:
    assert grade("B", gold) is None


def test_a_letter_alone_is_gold_enough() -> None:
    assert [grade(answer, "B") for answer in ("The answer is B.", "C")] == [True, False]


def test_two_choices_of_one_text_name_no_letter() -> None:
    assert letter_of("bank", {"A": "bank", "B": "the bank"}) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"choices": ["a", "b"]}, "choices: expected an object of letters and texts"),
        ({"choices": {"A": "a", "b": "b"}}, "choices: expected capital letters, got 'b'"),
        ({"choices": {"A": "a", "B": " "}}, "choices: B: expected a text"),
        ({"answer": "F"}, "answer 'F' is none of the choices A, B, C, D, E"),
        ({"answer": ""}, "answer is empty"),
        ({"stem": None}, "stem: expected a text"),
    ],
)
def test_a_bad_row_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match="item 2: ") as caught:
        CSQA.items([ROW, {**ROW, "stem": "Another?", **changes}])
    assert says in str(caught.value)


def test_the_prompt_has_question_and_choices_and_an_item_twice_is_named() -> None:
    (item,) = CSQA.items([ROW])
    assert item.query == (
        "Where are magazines?\nA. doctor\nB. bookstore\nC. market\nD. train station\nE. mortuary"
    )
    assert CSQA.query(item, plain=False).endswith(f"its letter alone.\n{item.query}")
    with pytest.raises(DataError, match="item 2: the same item as at item 1"):
        CSQA.items([ROW, ROW])


def test_rows_of_the_hub_become_rows_of_the_files() -> None:
    row = {
        "id": "1",
        "question": ROW["stem"],
        "question_concept": "magazines",
        "choices": {"label": list(CHOICES), "text": list(CHOICES.values())},
        "answerKey": "B",
    }
    assert CSQA.items([dict(from_hub(row))]) == CSQA.items([ROW])


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no shared data at {DATA}")
def test_the_shared_items_are_read_whole_and_every_form_of_their_answers_is_right() -> None:
    items = CSQA.load(DATA)
    assert len(items) == 847
    for item in items:
        gold = json.loads(item.gold)
        letter, text = gold["answer"], gold["choices"][gold["answer"]]
        once = list(gold["choices"].values()).count(text) == 1
        assert all(grade(f"{way}{letter}", item.gold) for way in ("", "The answer is ", "So: ("))
        assert grade(f"The answer is {letter}. {text}", item.gold)
        assert not once or grade(text, item.gold)
        others = [other for other in gold["choices"] if other != letter]
        assert not any(grade(f"The answer is {other}.", item.gold) for other in others)
