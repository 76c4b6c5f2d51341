from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.outcomes.stats import ModelStats, SourceStats, stats, store_stats
from r2reasoner.outcomes.store import OutcomeStore
from r2reasoner.types import Usage
from recorded import answered, outcome

ANSWERS = (
    answered("a", cost=10, latency_s=0.1),
    answered("b", cost=20, latency_s=0.3, source="search"),
    answered("c", cost=None, latency_s=None, usage=None, source="calibration"),
    answered("d", model="large", cost=500, latency_s=2.0),
)
OUTCOMES = (
    outcome("a", subtask=1, score=1.0),
    outcome("b", subtask=2, score=0.0),
    outcome("c", item="other", plan=None, subtask=None, score=0.99),
    outcome("d", model="large", subtask=1, score=1.0, source="search"),
    outcome("d", model="large", subtask=2, score=None),
    outcome("e", model="absent", subtask=1, score=0.0),
)


def test_by_model_and_by_source() -> None:
    found = stats(ANSWERS, OUTCOMES)
    absent, large, small = found.models
    assert small == ModelStats(
        model="small",
        answers=3,
        outcomes=3,
        judged=3,
        right=1 / 3,
        usage=Usage(10, 6, 4, 2),
        cost=30,
        unpriced=1,
        latency_s=0.2,
        coverage=1.0,
    )
    assert (large.outcomes, large.judged, large.right, large.coverage) == (2, 1, 1.0, 1 / 3)
    assert (absent.answers, absent.cost, absent.latency_s, absent.right) == (0, 0, None, 0.0)
    assert found.sources == (
        SourceStats("calibration", 1, 0),
        SourceStats("exact", 0, 5),
        SourceStats("search", 1, 1),
        SourceStats("test", 2, 0),
    )
    assert (found.items, found.places, found.coverage) == (2, 3, 5 / 9)


def test_nothing_is_no_division_by_zero() -> None:
    found = stats((), ())
    assert (found.models, found.sources, found.places, found.coverage) == ((), (), 0, None)


def test_answers_that_were_never_judged_have_no_share() -> None:
    found = stats(ANSWERS, (outcome("a", score=None),))
    assert {model.right for model in found.models} == {None}
    assert found.coverage is None


def test_a_store_in_figures(tmp_path: Path) -> None:
    with OutcomeStore.open(tmp_path) as store:
        for answer in ANSWERS:
            store.put(answer)
        for judged in OUTCOMES:
            store.add(judged)
        live = store_stats(store)
    assert live == store_stats(OutcomeStore.open(tmp_path)) == stats(ANSWERS, OUTCOMES)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sampled_from([0, 0.5, 1]))),
)
def test_shares_are_shares(judged: list[tuple[str, int, float]]) -> None:
    outcomes = {outcome("k", model=m, subtask=s, score=v) for m, s, v in judged}
    found = stats((), tuple(outcomes))
    assert sum(model.judged for model in found.models) == len(outcomes)
    for model in found.models:
        assert 0 <= (model.right or 0) <= 1
        assert 0 < (model.coverage or 0) <= 1
    if found.places:
        cells = {(o.model, o.subtask) for o in outcomes}
        assert found.coverage == len(cells) / (found.places * len(found.models))
