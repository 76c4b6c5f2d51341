"""Tables of a recipe: what is read is checked, what is written reads as the same."""

import tomllib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import ConfigError
from r2reasoner.training.tables import (
    Key,
    dollars,
    number,
    one_of,
    read_table,
    several,
    text,
    whole,
    write_table,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    share: Annotated[float, number(0, 1, above=True)] = 0.5
    names: Annotated[tuple[str, ...], several(text())] = ("a",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    steps: Annotated[int, whole(1, 10)] = 3
    cap: Annotated[Decimal, dollars(100)] = Decimal(1)
    title: Annotated[str, text(empty=True)] = ""
    rest: Annotated[float, number(-1e6, 1e6)] = 0.0
    below: Annotated[float, number(0, 1, below=True)] = 0.0
    kind: Literal["linear", "cosine"] = "linear"
    scorer: Annotated[str, one_of({"exact": 1})] = "exact"
    on: bool = False
    renamed: Annotated[Inner, Key("other")] = field(default_factory=Inner)
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(str.strip)
INNER = st.builds(
    Inner,
    share=st.floats(0, 1, exclude_min=True),
    names=st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
)
OUTER = st.builds(
    Outer,
    steps=st.integers(1, 10),
    cap=st.decimals(Decimal("0.000001"), 100, places=6),
    title=st.just("") | TEXTS,
    rest=st.floats(-1e6, 1e6),
    below=st.floats(0, 1, exclude_max=True),
    kind=st.sampled_from(["linear", "cosine"]),
    on=st.booleans(),
    renamed=INNER,
    maybe=st.none() | INNER,
    many=st.lists(INNER, max_size=2).map(tuple),
)


@given(OUTER)
def test_what_is_written_reads_as_the_same(value: Outer) -> None:
    raw = tomllib.loads(write_table(value), parse_float=Decimal)
    assert read_table(Outer, raw, "x.toml") == value


def test_every_key_is_written() -> None:
    raw = tomllib.loads(write_table(Outer()))
    assert set(raw) == {
        *("steps", "cap", "title", "rest", "below", "kind", "scorer", "on", "other", "maybe")
    }
    assert raw["maybe"] == "none"
    assert raw["other"] == {"share": 0.5, "names": ["a"]}


def test_what_is_left_out_has_its_default() -> None:
    assert read_table(Outer, {}, "x.toml") == Outer()
    assert read_table(Outer, {"maybe": {}}, "x.toml").maybe == Inner()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"stepz": 3}, "x.toml: [stepz]: unknown key; did you mean 'steps'?"),
        ({"other": {"shore": 1}}, "x.toml: [other] shore: unknown key; did you mean 'share'?"),
        ({"renamed": {}}, "[renamed]: unknown key"),
        ({"steps": 0}, "steps: expected a whole number from 1 to 10, got '0'"),
        ({"steps": 11}, "a whole number from 1 to 10"),
        ({"steps": Decimal("2.5")}, "a whole number from 1 to 10, got '2.5'"),
        ({"steps": True}, "a whole number from 1 to 10, got 'True'"),
        ({"steps": "3"}, "a whole number from 1 to 10"),
        ({"other": {"share": 0}}, "[other] share: expected a number above 0 and at most 1"),
        ({"below": 1}, "a number of at least 0 and below 1, got '1'"),
        ({"rest": Decimal("NaN")}, "a number of at least -1e+06"),
        ({"rest": float("inf")}, "a number of at least -1e+06"),
        ({"cap": 0}, "dollars above 0 and at most 100"),
        ({"cap": Decimal("Infinity")}, "dollars above 0"),
        ({"title": "two\nlines"}, "a text in one line, or an empty one"),
        ({"title": 3}, "a text in one line"),
        ({"other": {"names": ["a", " "]}}, "a list, each member a text in one line"),
        ({"other": {"names": []}}, "a list, each member a text in one line"),
        ({"other": {"names": "a"}}, "a list, each member a text in one line"),
        ({"kind": "lin"}, 'expected "linear" or "cosine", got \'lin\''),
        ({"kind": ["linear"]}, 'expected "linear" or "cosine"'),
        ({"scorer": "close"}, 'expected "exact"'),
        ({"on": 1}, "on: expected true or false, got '1'"),
        ({"other": 3}, "other: expected a table, [other]"),
        ({"maybe": "some"}, "maybe: expected a table, [maybe]"),
        ({"many": {}}, "many: expected tables, [[many]]"),
        ({"many": [3]}, "many: expected a table, [many]"),
        ([], "expected a table"),
    ],
)
def test_what_is_wrong_is_named(raw: Any, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_table(Outer, raw, "x.toml")
    assert says in str(error.value)


def test_a_field_that_does_not_say_what_is_allowed_is_a_mistake_of_ours() -> None:
    @dataclass
    class Vague:
        name: str = ""

    with pytest.raises(TypeError, match="does not say what is allowed"):
        read_table(Vague, {}, "x.toml")
