"""One evaluation over several seeds: what draws is run with each, what does not with the first."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from r2reasoner.errors import ConfigError
from r2reasoner.evaluation.evaluate import Evaluation
from r2reasoner.evaluation.rows import ItemRow
from r2reasoner.strategies.draws import draws


def read_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a text as `0,1,2`. Raises ConfigError for what is no whole number."""
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--seeds: expected whole numbers, as 0,1,2, got {text!r}") from None
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds: expected each seed once, got {text!r}")
    return seeds


def over_seeds(evaluation: Evaluation, seeds: Sequence[int]) -> list[Evaluation]:
    """Return an evaluation for each seed that has something to run, on the same items."""
    first, *others = (replace(evaluation, seed=seed) for seed in seeds)
    drawn = tuple(
        name for name in evaluation.strategies if draws(name, evaluation.pool, evaluation.settings)
    )
    return [first, *(replace(other, strategies=drawn) for other in others if drawn)]


def together(results: Iterable[list[list[ItemRow]]]) -> list[list[ItemRow]]:
    """Return the rows of each strategy, seed after seed, in the order of the first result."""
    rows: dict[str, list[ItemRow]] = {}
    for result in results:
        for own in result:
            rows.setdefault(own[0].strategy, []).extend(own)
    return list(rows.values())
