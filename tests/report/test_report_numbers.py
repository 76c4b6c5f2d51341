import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.report.numbers import (
    FIGURE_SPACE,
    POINT_SPACE,
    aligned,
    common_unit,
    in_unit,
    money,
    percent,
    percent_range,
    points,
    significant,
)


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (None, "unknown"),
        (0.0, "$0"),
        (1.2, "$1.20"),
        (1234.5, "$1,234"),
        (0.0234, "23.4 m$"),
        (6.05e-6, "6.05 µ$"),
        (1.75e-8, "17.5 n$"),
        (-0.002, "−2.00 m$"),
    ],
)
def test_money_reads_in_its_own_unit(dollars: float | None, text: str) -> None:
    assert money(dollars).replace("\u00a0", " ") == text


def test_a_column_has_the_unit_of_its_dearest_and_unknown_stays_unknown() -> None:
    unit = common_unit([None, 2e-6, 9e-9])
    assert unit.name == "µ$"
    assert [in_unit(cost, unit) for cost in (None, 2e-6, 9e-9)] == ["unknown", "2.00", "0.00900"]


@given(st.floats(1e-9, 1e9))
def test_three_significant_digits_are_within_half_a_percent(value: float) -> None:
    text = significant(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_a_difference_is_signed_and_nothing_is_minus_zero() -> None:
    assert (points(0.0204), points(-0.0204), points(None)) == ("+2.0", "−2.0", "unknown")
    assert percent(-0.00001) == "0.0"
    assert percent_range((0.1, 0.2)) == "10.0 to 20.0"
    assert percent_range(None) == ""


def test_decimal_points_stand_below_each_other() -> None:
    padded = aligned(["12.5", "3", "0.125", "unknown", "1,000"])
    assert padded[0] == "12.5" + FIGURE_SPACE * 2
    assert padded[1] == "3" + POINT_SPACE + FIGURE_SPACE * 3
    assert padded[2:4] == ["0.125", "unknown"]
    assert padded[4] == "1,000" + POINT_SPACE + FIGURE_SPACE * 3
