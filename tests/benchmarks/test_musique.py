import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.benchmarks.musique import MUSIQUE, answer_of, grade, normalise, score
from r2reasoner.errors import DataError

DATA = Path(__file__).parents[3] / "shared" / "data" / "musique"
GOLD = json.dumps({"answer": "The Beatles", "aliases": ["Fab Four", "J. Lennon's band"]})
PARAGRAPHS = [{"idx": 0, "title": "Music", "paragraph_text": "They were four."}]
ROW = {"question": "Which band?", "paragraphs": PARAGRAPHS, "answer": "The Beatles"}


@pytest.mark.parametrize(
    ("answer", "right", "f1"),
    [
        ("The Beatles", True, 1.0),
        ("beatles!", True, 1.0),
        ("  the  BEATLES.\n", True, 1.0),
        ("Fab Four", True, 1.0),
        ("fab, four", True, 1.0),
        ("j lennons band", True, 1.0),
        ("Paragraph 1 says so.\nAnswer: The Beatles", True, 1.0),
        ("**Answer:** Beatles", True, 1.0),
        ("Final answer: Queen\nAnswer: the Beatles", True, 1.0),
        ("The answer is: Beatles", True, 1.0),
        ("The Beatles band", False, 2 / 3),
        ("Four", False, 2 / 3),
        ("It was the Beatles", False, 1 / 2),
        ("Beatles Beatles", False, 2 / 3),
        ("Beatle", False, 0.0),
        ("the", False, 0.0),
        ("", False, 0.0),
        ("Answer:", False, 0.0),
    ],
)
def test_exact_match_and_f1_are_the_published_ones(answer: str, right: bool, f1: float) -> None:
    assert grade(answer, GOLD) is right
    assert score(answer, GOLD) == pytest.approx(f1)


def test_the_normalisation_is_squads() -> None:
    # punctuation goes before articles: "a.b" is one word, and "an-d" is not "d"
    assert normalise("The  Cat's A-team, an\tU.S. theory") == "cats ateam us theory"
    assert normalise("“the” naïve") == "“ ” naïve"


@given(st.text(), st.text())
def test_no_text_makes_a_scorer_raise(answer: str, gold: str) -> None:
    assert grade(answer, gold) in (True, False, None)
    told = score(answer, GOLD)
    assert told is not None
    assert 0 <= told <= 1
    assert grade(answer, GOLD) is not True or told == 1


@pytest.mark.parametrize("answer", ["Answer: " * 50_000, "the " * 100_000, "\ud800", "#" * 100_000])
def test_hostile_text_is_wrong_and_nothing_more(answer: str) -> None:
    assert grade(answer, GOLD) is False


@pytest.mark.parametrize("gold", ["Beatles", "{}", '{"answer": 3, "aliases": []}', "[" * 50_000])
def test_gold_of_another_form_cannot_be_judged(gold: str) -> None:
    assert (grade("Beatles", gold), score("Beatles", gold)) == (None, None)


def test_an_answer_is_what_is_marked_last_or_all() -> None:
    assert answer_of("Answer: a\nthen\n> **Final answer:** b") == "b"
    assert answer_of("no mark, the answer: none") == "no mark, the answer: none"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"paragraphs": []}, "paragraphs: expected a list of them"),
        ({"paragraphs": ["x"]}, "paragraphs: 1: expected an object"),
        ({"paragraphs": [{"title": "x"}]}, "paragraphs: 1: no 'paragraph_text'"),
        ({"answer": "the"}, "answer 'the' is nothing to score against"),
        ({"answer_aliases": "x"}, "answer_aliases: expected a list of texts"),
        ({"answerable": False}, "answerable: expected true"),
    ],
)
def test_a_bad_row_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match="item 2: ") as caught:
        MUSIQUE.items([ROW, {**ROW, "question": "Another?", **changes}])
    assert says in str(caught.value)


def test_the_query_has_paragraphs_and_question() -> None:
    (item,) = MUSIQUE.items([{**ROW, "answer_aliases": ["Fab Four"]}])
    assert item.query == "Music\nThey were four.\n\nQuestion: Which band?"
    assert json.loads(item.gold) == {"answer": "The Beatles", "aliases": ["Fab Four"]}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no shared data at {DATA}")
def test_the_shared_items_are_read_whole_and_their_answers_are_right() -> None:
    items = MUSIQUE.load(DATA)
    assert len(items) == 146
    for item in items:
        gold = json.loads(item.gold)
        for right in (gold["answer"], *gold["aliases"], gold["answer"].upper()):
            assert grade(right, item.gold), item.gold
            assert score(f"Answer: {right}", item.gold) == 1
        assert not grade("nothing of the kind", item.gold)
        assert item.query.count("\n\n") >= 20
