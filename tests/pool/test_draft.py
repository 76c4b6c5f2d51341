from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import ConfigError
from r2reasoner.files import write_whole
from r2reasoner.pool.cards import Group, Pool
from r2reasoner.pool.discover import PROVIDERS, Listed, Source
from r2reasoner.pool.draft import pool_text
from r2reasoner.pool.load import load_pool


def load_text(folder: Path, text: str) -> Pool:
    file = folder / "r2.toml"
    write_whole(file, text, replace=True)
    return load_pool(file)


def local(*models: str) -> Source:
    listed = tuple(Listed(model, None, 4096) for model in models)
    return Source("local-1", "http://localhost:1/v1", None, listed)


def test_all_providers_make_a_priced_pool_from_weak_to_strong(tmp_path: Path) -> None:
    pool = load_text(tmp_path, pool_text(PROVIDERS, "r2"))
    assert len(pool.workers) == sum(len(source.models) for source in PROVIDERS)
    assert all(card.price for card in pool.workers)
    order = [Group.SMALL, Group.MEDIUM, Group.LARGE]
    ranks = [order.index(card.group) for card in pool.workers if card.group]
    assert ranks == sorted(ranks)
    assert pool.card(pool.decomposer).group is Group.MEDIUM
    assert pool.allocator == "ladder"
    assert {card.endpoint.key_env for card in pool.workers} == {p.key_env for p in PROVIDERS}


def test_a_thinking_model_gets_room_to_think_and_what_its_provider_wants(tmp_path: Path) -> None:
    pool = load_text(tmp_path, pool_text(PROVIDERS[:1], "r2"))
    assert all(card.max_tokens == 8192 for card in pool.workers)
    assert pool.workers[0].capabilities == {"fixed_temperature", "max_completion_tokens"}


def test_what_a_model_can_do_is_left_to_the_reader(tmp_path: Path) -> None:
    text = pool_text([*PROVIDERS[:1], local("m")], "r2")
    assert '\n# capabilities = ["tools", "images", "json", "n"]\n' in text
    taken = text.replace("# capabilities", "capabilities")
    (mine,) = [c for c in load_text(tmp_path, taken).workers if c.name == "m"]
    assert mine.capabilities == {"tools", "images", "json", "n"}


def test_local_models_stay_unpriced_until_the_user_says(tmp_path: Path) -> None:
    text = pool_text([local("m")], "r2")
    pool = load_text(tmp_path, text)
    assert pool.workers[0].price is None
    assert pool.workers[0].endpoint.key_env is None
    free = load_text(tmp_path, text.replace("# input", "input").replace("# output", "output"))
    assert free.workers[0].price is not None


def test_a_model_offered_twice_is_named_by_its_source(tmp_path: Path) -> None:
    other = Source("two", "http://localhost:2/v1", None, (Listed("m", None, 64),))
    pool = load_text(tmp_path, pool_text([local("m", "n", "ladder"), other], "r2"))
    assert sorted(card.name for card in pool.workers) == [
        "ladder@local-1",
        "m@local-1",
        "m@two",
        "n",
    ]


@given(
    st.lists(
        st.text(min_size=1, max_size=20).filter(lambda s: s.isprintable() and s == s.strip()),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_any_printable_model_name_survives(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    pool = load_text(tmp_path_factory.mktemp("pool"), pool_text([local(*names)], "r2"))
    assert {card.model for card in pool.workers} == set(names)


def test_without_a_model_there_is_no_pool() -> None:
    with pytest.raises(ConfigError, match="no model at hand"):
        pool_text([], "r2")
