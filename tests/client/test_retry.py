from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.client.retry import (
    BACKOFF_CEILING_S,
    BACKOFF_S,
    RETRY_AFTER_CEILING_S,
    fault_of,
    pause_s,
    read_retry_after,
)
from r2reasoner.errors import RETRYABLE, CallFault

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_statuses_that_may_pass_on_another_try(status: int) -> None:
    assert fault_of(status) in RETRYABLE


@pytest.mark.parametrize("status", [300, 307, 400, 401, 402, 403, 404, 405, 410, 413, 418, 422])
def test_statuses_that_will_not(status: int) -> None:
    assert fault_of(status) not in RETRYABLE


def test_statuses_are_told_apart() -> None:
    assert fault_of(401) is CallFault.AUTH
    assert fault_of(404) is CallFault.NOT_FOUND
    assert fault_of(429) is CallFault.RATE_LIMITED
    assert fault_of(503) is CallFault.OVERLOADED
    assert fault_of(422) is CallFault.BAD_REQUEST


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("60", 60.0),
        ("61", RETRY_AFTER_CEILING_S),
        ("1e9", RETRY_AFTER_CEILING_S),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Mon, 99 Foo 2026 12:00:00 GMT", None),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=400), usegmt=True), RETRY_AFTER_CEILING_S),
        ("Tue, 24 Nov 2026 12:00:05 -0000", 5.0),
        ("Tue, 24 Nov 2026 13:00:05 +0100", 5.0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, NOW) == seconds


dates = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)).map(
    lambda d: format_datetime(d.replace(tzinfo=UTC), usegmt=True)
)


@given(st.one_of(st.text(), st.floats().map(str), st.integers().map(str), dates))
def test_whatever_a_header_says_the_wait_is_none_or_within_a_minute(value: str | None) -> None:
    seconds = read_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_CEILING_S


@given(st.integers(1, 12), st.integers())
def test_the_pause_is_drawn_from_zero_to_a_growing_ceiling(attempt: int, seed: int) -> None:
    ceiling = min(BACKOFF_CEILING_S, BACKOFF_S * 2 ** (attempt - 1))
    assert 0 <= pause_s(attempt, None, Random(seed)) <= ceiling


def test_the_jitter_is_full() -> None:
    rng = Random(0)
    pauses = [pause_s(1, None, rng) for _ in range(1000)]
    for quarter in range(4):
        low, high = BACKOFF_S * quarter / 4, BACKOFF_S * (quarter + 1) / 4
        assert 180 < sum(low <= pause < high for pause in pauses) < 320


@given(st.floats(0, RETRY_AFTER_CEILING_S), st.integers(1, 3), st.integers())
def test_a_retry_after_is_never_undercut(asked: float, attempt: int, seed: int) -> None:
    assert pause_s(attempt, asked, Random(seed)) >= asked
