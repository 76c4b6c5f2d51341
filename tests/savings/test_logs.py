from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logged_requests import litellm, openai, write_lines
from r2reasoner.errors import DataError
from r2reasoner.savings.logs import LeftOut, read_logs
from r2reasoner.types import Message, Usage, to_pico

PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def batch(custom_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    asked = openai("2 + 3", "5")
    body = asked["request"]
    answer = {"status_code": 200, "body": asked["response"]}
    return (
        {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"id": "b", "custom_id": custom_id, "response": answer, "error": None},
    )


def test_openai_and_litellm_lines_become_the_same_request(tmp_path: Path) -> None:
    nested = {"standard_logging_object": litellm("2 + 3", "5")}
    rows = [openai("2 + 3", "5"), litellm("2 + 3", "5", response_cost=0.002), nested]
    logs = read_logs([write_lines(tmp_path / "l.jsonl", *rows)])
    assert {(r.messages, r.answer, r.model) for r in logs.requests} == {
        ((Message("user", "2 + 3"),), "5", "large")
    }
    assert {r.usage for r in logs.requests} == {Usage(100, 10)}
    assert [r.cost for r in logs.requests] == [None, to_pico("0.002"), None]
    assert len({r.id for r in logs.requests}) == 3


def test_halves_of_a_batch_meet_across_files(tmp_path: Path) -> None:
    asked, answered = batch("r1")
    _, stray = batch("r2")
    lonely, _ = batch("r3")
    logs = read_logs(
        [
            write_lines(tmp_path / "out.jsonl", answered, stray),
            write_lines(tmp_path / "in.jsonl", asked, lonely),
        ]
    )
    (request,) = logs.requests
    assert request.where == f"{tmp_path / 'in.jsonl'}:1"
    assert logs.left_out == {LeftOut.NO_REQUEST: 1, LeftOut.NO_ANSWER: 1}


def changed(**more: Any) -> dict[str, Any]:
    return litellm("2 + 3", "5") | more


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (changed(status="failure"), LeftOut.FAILED),
        (changed(cache_hit=True), LeftOut.CACHED),
        (changed(call_type="aembedding"), LeftOut.NOT_CHAT),
        (changed(messages="redacted-by-litellm"), LeftOut.REDACTED),
        (changed(messages=[]), LeftOut.NO_QUESTION),
        (changed(messages=[{"role": "assistant", "content": "hi"}]), LeftOut.NO_QUESTION),
        (changed(messages=[{"role": "tool", "content": "hi"}]), LeftOut.NOT_TEXT),
        (
            changed(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
            LeftOut.NOT_TEXT,
        ),
        (changed(response={}), LeftOut.NO_ANSWER),
        (changed(response={"choices": [{"message": {"content": " "}}]}), LeftOut.NO_ANSWER),
        (changed(response={"choices": [{"message": {"tool_calls": [1]}}]}), LeftOut.NOT_TEXT),
    ],
)
def test_what_is_no_whole_chat_of_text_is_counted(
    tmp_path: Path, row: dict[str, Any], reason: LeftOut
) -> None:
    logs = read_logs([write_lines(tmp_path / "l.jsonl", openai("a", "b"), row)])
    assert len(logs.requests) == 1
    assert logs.left_out[reason] == 1


def test_parts_of_text_a_conversation_and_a_gold_are_kept(tmp_path: Path) -> None:
    row = openai("x", "5", gold=5)
    row["request"]["messages"] = [
        {"role": "developer", "content": "be short"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "2"}, {"type": "text", "text": "+ 3"}],
        },
    ]
    (request,) = read_logs([write_lines(tmp_path / "l.jsonl", row)]).requests
    assert request.gold == "5"
    query = request.query()
    assert (query.text, query.earlier) == ("2\n+ 3", (Message("system", "be short"),))


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 1.5, "completion_tokens": 2},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 9}},
        "many",
    ],
)
def test_impossible_token_counts_are_not_known(tmp_path: Path, usage: Any) -> None:
    row = openai("a", "b")
    row["response"]["usage"] = usage
    (request,) = read_logs([write_lines(tmp_path / "l.jsonl", row)]).requests
    assert request.usage is None


def test_bad_lines_are_named_by_number_and_never_shown(tmp_path: Path) -> None:
    secret = "sk-canary-123"
    file = write_lines(
        tmp_path / "l.jsonl",
        openai("a", "b"),
        f'{{"api_key": "{secret}"',
        {"Authorization": f"Bearer {secret}"},
        "[1]",
    )
    with pytest.raises(DataError) as raised:
        read_logs([file])
    told = str(raised.value)
    assert f"{file}:2, {file}:3, {file}:4: expected a request log" in told
    assert secret not in told
    skipped = read_logs([file], skip_bad=True)
    assert (len(skipped.requests), len(skipped.bad)) == (1, 3)


def test_a_log_without_any_request_is_refused_with_the_reasons(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "l.jsonl", changed(status="failure"))
    with pytest.raises(DataError, match="1 failed requests"):
        read_logs([file])
    with pytest.raises(DataError, match="no such file"):
        read_logs([tmp_path / "none.jsonl"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["request", "response", "messages", "role", "content", "usage", "model"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["request", "response", "messages", "model"]), JSON))
@example({"model": None, "messages": [{"role": []}]})
def test_any_json_is_a_request_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]
) -> None:
    file = write_lines(tmp_path_factory.mktemp("any") / "l.jsonl", openai("a", "b"), row)
    assert read_logs([file], skip_bad=True).requests
