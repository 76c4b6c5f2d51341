import pytest

from pools import card_at
from r2reasoner.benchmarks.grading import number
from r2reasoner.budget import Meter
from r2reasoner.client.openai import OpenAIClient
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.savings.logs import Logged
from r2reasoner.savings.verdict import Judge, Judged, agree, read_verdict
from r2reasoner.types import Message


def logged(identifier: str = "a", gold: str | None = None) -> Logged:
    question = (Message("user", "2 + 3"),)
    return Logged(identifier, "l:1", question, "It is five", "m", None, None, None, gold)


def test_agreement_is_of_words_not_of_case_or_signs() -> None:
    assert agree(" **It is** five.", "it is five")
    assert not agree("It is six", "it is five")


@pytest.mark.parametrize(
    ("said", "first", "verdict"),
    [
        ("A", True, True),
        ("A", False, False),
        ("b.", True, False),
        ("TIE", True, True),
        ("Verdict: B", False, True),
        ("A or B", True, None),
        ("", True, None),
        ("Apple", True, None),
    ],
)
def test_a_verdict_is_one_word_or_none(said: str, first: bool, verdict: bool | None) -> None:
    assert read_verdict(said, first=first) is verdict


async def test_gold_then_agreement_then_the_judge(ledger: Ledger) -> None:
    seen: list[str] = []

    def answer(call: ChatCall) -> str:
        seen.append(call.last_user)
        return "A" if "Answer A:\n<data>\nFive!" in call.last_user else "B"

    async with MockProvider(answer=answer) as provider:
        client = OpenAIClient()
        meter = Meter(ledger, "q")
        judge = Judge(agree, client, card_at(provider.base_url, "judge"))
        by_number = Judge(number, client)
        assert await by_number.compare(logged(gold="5"), "so 5", meter) == Judged(True, "gold")
        assert await judge.compare(logged(), "it is FIVE", meter) == Judged(True, "agreement")
        assert not seen
        # whichever place the answer has, it is the one that the judge prefers here
        for identifier in "abcdefgh":
            found = await judge.compare(logged(identifier), "Five!", meter)
            assert found == Judged(True, "judge")
        await client.close()
    assert {"Answer A:\n<data>\nFive!" in text for text in seen} == {True, False}
    assert meter.spent > 0


async def test_a_judge_that_fails_or_rambles_gives_no_verdict(ledger: Ledger) -> None:
    async with MockProvider(answer=lambda call: "Both A and B") as provider:
        client = OpenAIClient()
        judge = Judge(agree, client, card_at(provider.base_url, "judge"))
        assert await judge.compare(logged(), "six", Meter(ledger, "q")) == Judged(None, "judge")
        await client.close()


async def test_without_a_judge_to_differ_is_to_be_at_risk(ledger: Ledger) -> None:
    client = OpenAIClient()
    found = await Judge(agree, client).compare(logged(), "six", Meter(ledger, "q"))
    assert found == Judged(False, "agreement")
    await client.close()
