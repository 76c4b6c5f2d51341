import pytest

from r2reasoner.gateway.dashboard.session import LASTS_S, TRIES, TRIES_WITHIN_S, Sessions


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_cookie_finds_its_session_and_no_other_process_knows_it(clock: Clock) -> None:
    sessions = Sessions(clock)
    session = sessions.begin()
    assert sessions.find(session.cookie) == session
    assert Sessions(clock).find(session.cookie) is None


def test_a_changed_cookie_is_none(clock: Clock) -> None:
    sessions = Sessions(clock)
    name, expires, sign = sessions.begin().cookie.split(".")
    later = str(int(expires) + 1)
    forged = [
        f"{name}.{later}.{sign}",
        f"{name[:-1]}x.{expires}.{sign}",
        f"{name}.{expires}.{sign[:-1]}{'0' if sign[-1] != '0' else '1'}",
        f"{name}.{expires}",
        f"{name}.{expires}.",
        f"{name}.²{expires}.{sign}",
        f"{name}.{expires}.{sign}.",
        f"{name}.{'9' * 5000}.{sign}",
        "",
        "...",
        "\udcff.1.2",
    ]
    assert [sessions.find(cookie) for cookie in (*forged, None)] == [None] * 12


def test_the_form_token_is_not_the_cookies_signature(clock: Clock) -> None:
    sessions = Sessions(clock)
    session = sessions.begin()
    assert session.token not in session.cookie
    assert sessions.is_token(session, session.token)
    for wrong in ("", session.cookie, sessions.begin().token, session.token[:-1], "\udcff"):
        assert not sessions.is_token(session, wrong)


def test_a_session_ends_by_time_and_by_logging_out(clock: Clock) -> None:
    sessions = Sessions(clock)
    one, other = sessions.begin(), sessions.begin()
    sessions.end(one)
    assert sessions.find(one.cookie) is None
    assert sessions.find(other.cookie) is not None
    clock.now += LASTS_S
    assert sessions.find(other.cookie) is None


def test_wrong_keys_are_limited_by_place_and_time(clock: Clock) -> None:
    sessions = Sessions(clock)
    for _ in range(TRIES):
        assert sessions.may_try("10.0.0.1")
        sessions.failed("10.0.0.1")
    assert not sessions.may_try("10.0.0.1")
    assert sessions.may_try("10.0.0.2")
    clock.now += TRIES_WITHIN_S + 1
    assert sessions.may_try("10.0.0.1")
