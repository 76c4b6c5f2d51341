from dataclasses import replace

import pytest
from test_rows import ROW

import toy_pool
from r2reasoner.config import settings
from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.evaluate import Evaluation
from r2reasoner.evaluation.seeds import over_seeds, read_seeds, together

EVALUATION = Evaluation(
    benchmark=toy_pool.SHOUT,
    split="all",
    items=toy_pool.items(3),
    strategies=("single:large", "random", "r2"),
    pool=toy_pool.pool("http://127.0.0.1:1/v1"),
    settings=settings(),
)


def test_only_what_draws_is_run_with_further_seeds() -> None:
    first, *others = over_seeds(EVALUATION, (4, 5, 6))
    assert (first.seed, first.strategies) == (4, EVALUATION.strategies)
    assert [(e.seed, e.strategies) for e in others] == [(5, ("random",)), (6, ("random",))]
    assert all(e.items == EVALUATION.items for e in others)
    fixed = replace(EVALUATION, strategies=("r2",))
    assert [e.seed for e in over_seeds(fixed, (0, 1))] == [0]


def test_rows_stand_by_strategy_seed_after_seed() -> None:
    rows = [
        [[replace(ROW, strategy=name, seed=seed)] for name in names]
        for seed, names in ((0, ("a", "b")), (1, ("b",)))
    ]
    told = [[(row.strategy, row.seed) for row in own] for own in together(rows)]
    assert told == [[("a", 0)], [("b", 0), ("b", 1)]]


def test_seeds_are_read() -> None:
    assert read_seeds("0, 1,-2") == (0, 1, -2)


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "expected whole numbers"), ("0,x", "got '0,x'"), ("1,1", "each seed once")],
)
def test_what_are_no_seeds_is_told(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"--seeds: .*{says}"):
        read_seeds(text)
