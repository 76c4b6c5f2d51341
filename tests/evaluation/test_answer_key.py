import toy_pool
from r2reasoner.benchmarks import ARITHMETIC, Benchmark
from r2reasoner.evaluation.answer_key import answer_key


def test_nano_tasks_are_known_down_to_their_subtasks() -> None:
    key = answer_key(ARITHMETIC, (), plain=True)
    assert key.subtasks
    assert key.right("2 + 3", "5") is True
    assert key.right("2 + 3", "6") is False
    assert key.right("two", "2") is None


def test_other_benchmarks_are_known_by_their_items() -> None:
    items = toy_pool.SHOUT.items([{"query": "is #1 red", "answer": "YES"}])
    key = answer_key(toy_pool.SHOUT, items, plain=True)
    assert not key.subtasks
    assert key.right("is #1 red", "YES") is True
    assert key.right("is no. 1 red", "YES") is True, "as a plan of one call words it"
    assert key.right("is #1 red", "NO") is False
    assert key.right("is #2 red", "YES") is None


def test_of_two_items_with_one_question_either_answer_is_right_and_unscored_is_not_wrong() -> None:
    def grade(answer: str, gold: str) -> bool | None:
        return None if answer == "?" else answer == gold

    twice = Benchmark(
        name="twice",
        query_field="q",
        gold_field="a",
        grade=grade,
        default_split="all",
        repeats=True,
        instruction="Say it.",
    )
    item = twice.items([{"q": "x", "a": "1"}])[0]
    key = answer_key(twice, (item, item._replace(gold="2")), plain=False)
    assert [key.right("Say it.\nx", answer) for answer in ("1", "2", "3", "?")] == [
        True,
        True,
        False,
        None,
    ]
