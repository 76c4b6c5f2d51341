from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.config import Settings, load_settings, read_toml, settings
from r2reasoner.errors import ConfigError


def test_defaults_are_valid_and_uncapped() -> None:
    assert settings() == Settings()
    assert Settings().trade_off == 0.3
    assert Settings().cap is None


def test_flags_win_over_the_table_and_none_is_not_given() -> None:
    table = {"trade_off": Decimal("0.5"), "max_subtasks": 4}
    result = settings(table, "r2.toml", trade_off=0.9, max_subtasks=None, pool="nano")
    assert (result.trade_off, result.max_subtasks, result.pool) == (0.9, 4, "nano")


@pytest.mark.parametrize("given_as", ["0.05", Decimal("0.05"), 0.05])
def test_a_cap_is_exact_however_it_is_written(given_as: Any) -> None:
    assert settings(max_cost=given_as).cap == 50_000_000_000


def test_a_cap_below_a_pico_dollar_is_not_no_cap() -> None:
    assert settings(max_cost="1e-15").cap == 1


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("max_cost", "0", "--max-cost: expected dollars above 0"),
        ("max_cost", "-1", "got '-1'"),
        ("max_cost", "lots", "got 'lots'"),
        ("max_cost", "1e999999999", "--max-cost: expected dollars"),
        ("trade_off", 1.5, "--trade-off: expected a number from 0"),
        ("trade_off", float("nan"), "got 'nan'"),
        ("trade_off", True, "got 'True'"),
        ("deadline_s", 0, "--deadline: expected seconds above 0"),
        ("max_subtasks", 2.5, "expected a whole number from 1 to 100"),
        ("max_subtasks", Decimal("1e999999"), "expected a whole number"),
        ("max_query_bytes", 0, "expected a whole number of bytes"),
        ("max_plan_bytes", 2**40, "expected a whole number of bytes"),
        ("temperature", -0.1, "expected a number from 0 to 2"),
        ("pool", " ", "expected the name of a shipped pool"),
        ("trade_off", [0.3], "got '[0.3]'"),
    ],
)
def test_values_outside_their_range_are_refused_with_what_was_expected(
    key: str, value: Any, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**{key: value})
    assert text in str(caught.value)


def test_unknown_keys_are_refused_with_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"r2\.toml: \[router\] tradeoff: .*mean 'trade_off'"):
        settings({"tradeoff": 1}, "r2.toml")


def test_a_pool_file_cannot_name_another_pool() -> None:
    with pytest.raises(ConfigError, match="pool: unknown key"):
        settings({"pool": "nano"}, "r2.toml")


@given(
    st.dictionaries(
        st.sampled_from(sorted(Settings.__dataclass_fields__)) | st.text(max_size=5),
        st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(),
        max_size=3,
    )
)
def test_any_table_gives_settings_in_range_or_a_config_error(table: dict[str, Any]) -> None:
    try:
        result = settings(table, "f")
    except ConfigError:
        return
    assert 0 <= result.trade_off <= 1
    assert result.cap is None or 0 < result.cap < 2**63
    assert result.max_subtasks >= 1
    assert 0 < result.deadline_s <= 86_400


def test_load_settings_reads_the_router_table_exactly(tmp_path: Path) -> None:
    file = tmp_path / "r2.toml"
    file.write_text('[pool]\nname = "x"\n[router]\nmax_cost = 0.1\ntrade_off = 0.25\n')
    result = load_settings(file, trade_off=None)
    assert (result.max_cost, result.trade_off) == (Decimal("0.1"), 0.25)


def test_load_settings_without_a_router_table_gives_defaults(tmp_path: Path) -> None:
    file = tmp_path / "r2.toml"
    file.write_text("")
    assert load_settings(file) == Settings()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"router = 3", "router: expected a table"),
        (b"a = ", "not valid TOML"),
        (b"\xff\xfe", "expected UTF-8"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "not valid TOML"),
        (b"#" * (4 * 2**20 + 1), "larger than"),
    ],
)
def test_files_that_are_not_settings_are_refused_by_name(
    tmp_path: Path, content: bytes, text: str
) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml: ") as caught:
        load_settings(file)
    assert text in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path)
