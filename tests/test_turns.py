"""Which earlier turns are sent where not all fit."""

from hypothesis import assume, given
from hypothesis import strategies as st

from r2reasoner import turns
from r2reasoner.types import Message

TURNS = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(max_size=40)),
    max_size=20,
)


def conversation(*sizes: int) -> list[Message]:
    """Return turns of these sizes, the user's first."""
    texts = [f"{n:03}".ljust(size, ".") for n, size in enumerate(sizes)]
    return [Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]


def without_system(said: tuple[Message, ...] | list[Message]) -> list[Message]:
    return [turn for turn in said if turn.role != "system"]


@given(earlier=TURNS, room=st.integers(0, 2000))
def test_what_is_sent_fits_and_is_the_newest(earlier: list[Message], room: int) -> None:
    kept = turns.newest(earlier, room)
    systems = [turn for turn in earlier if turn.role == "system"]
    assert [turn for turn in kept if turn.role == "system"] == systems
    said, sent = without_system(earlier), without_system(kept)
    assert said[len(said) - len(sent) :] == sent
    if turns.size(*earlier) <= room:
        assert kept == tuple(earlier)
    else:
        assert turns.size(*sent) <= max(0, room - turns.size(*systems))
        assert not sent or sent[0].role == "user"


@given(
    sizes=st.lists(st.integers(3, 60), min_size=4, max_size=40),
    room=st.integers(200, 600),
)
def test_little_more_is_left_out_than_must_be(sizes: list[int], room: int) -> None:
    earlier = conversation(*sizes)
    assume(turns.size(*earlier) > room)
    kept = turns.newest(earlier, room)
    # a step, and two turns that are not cut: the one at its end, and an answer
    assert turns.size(*kept) >= room - room // turns.STEPS - 2 * 60


def test_the_beginning_stays_the_same_for_some_turns() -> None:
    earlier = conversation(*[20] * 160)
    beginnings = [turns.newest(earlier[:n], 1000)[0] for n in range(52, 160, 2)]
    assert beginnings == sorted(beginnings, key=lambda turn: turn.content)
    assert len(beginnings) >= 6 * len(set(beginnings))


def test_an_answer_is_not_the_first() -> None:
    earlier = [Message("system", "s"), *conversation(50, 50, 50, 50)]
    kept = turns.newest(earlier, 155)
    assert [turn.role for turn in kept] == ["system", "user", "assistant"]


def test_instructions_stay_where_they_alone_are_too_large() -> None:
    earlier = [Message("system", "s" * 100), *conversation(50, 50)]
    assert turns.newest(earlier, 20) == (earlier[0],)


def test_room_is_what_answer_and_query_leave() -> None:
    assert turns.room(1000, 100, 300) == 900 * turns.BYTES_PER_TOKEN - 300
    assert turns.room(100, 100, 5) == 0


def test_a_turn_loses_its_middle() -> None:
    turn = Message("user", "a" * 60 + "b" * 60)
    assert turns.shortened(turn, 120) is turn
    short = turns.shortened(turn, 20).content
    assert short == "a" * 10 + turns.CUT + "b" * 10
