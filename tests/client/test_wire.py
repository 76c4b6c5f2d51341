import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.client.base import ChatRequest
from r2reasoner.client.wire import (
    MAX_EVENT_BYTES,
    MAX_TOKENS_BELIEVED,
    EventParser,
    StreamReader,
    bound,
    encode,
    error_text,
    read_answer,
    read_usage,
)
from r2reasoner.errors import CallFault
from r2reasoner.pool.cards import Card, Endpoint, Price
from r2reasoner.types import Message, Role, Usage

CARD = Card(
    name="small",
    endpoint=Endpoint(name="e", kind="openai", base_url="http://localhost/v1"),
    model="vendor/small-1",
    price=Price(Decimal(1), Decimal(2)),
)
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def request_of(*texts: str, **settings: Any) -> ChatRequest:
    messages = tuple(Message("user", text) for text in texts)
    return ChatRequest(messages=messages, max_tokens=50, role=Role.WORKER, **settings)


def body_of(
    content: object = "hello you", finish: object = "stop", usage: object = USAGE, **message: object
) -> bytes:
    choice = {"message": {"content": content, **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def event_of(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def piece_of(text: str | None = None, finish: str | None = None, **more: object) -> bytes:
    delta = {} if text is None else {"content": text}
    return event_of({"choices": [{"delta": delta, "finish_reason": finish}], **more})


WHOLE = (
    piece_of("hel")
    + piece_of("lo\n")
    + piece_of(finish="stop")
    + event_of({"choices": [], "usage": USAGE})
    + b"data: [DONE]\n\n"
)


def read_stream(*chunks: bytes) -> tuple[list[str], StreamReader]:
    reader = StreamReader()
    pieces = [piece for chunk in chunks for piece in reader.feed(chunk)]
    return pieces, reader


class TestRequests:
    def test_every_setting_is_passed_through(self) -> None:
        request = request_of(
            "hello",
            temperature=0.5,
            stop=("END",),
            response_format={"type": "json_object"},
        )
        assert json.loads(encode(CARD, request, stream=True)) == {
            "model": "vendor/small-1",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 50,
            "temperature": 0.5,
            "stop": ["END"],
            "response_format": {"type": "json_object"},
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def test_what_is_not_asked_for_is_not_sent(self) -> None:
        body = json.loads(encode(CARD, request_of("hello"), stream=False))
        assert set(body) == {"model", "messages", "max_tokens", "temperature"}

    def test_a_card_says_how_its_endpoint_wants_to_be_asked(self) -> None:
        picky = frozenset({"max_completion_tokens", "fixed_temperature"})
        body = json.loads(
            encode(replace(CARD, capabilities=picky), request_of("hello"), stream=False)
        )
        assert body["max_completion_tokens"] == 50
        assert not {"max_tokens", "temperature"} & body.keys()

    def test_a_key_for_the_cache_is_sent_to_who_takes_it(self) -> None:
        request = request_of("hello", cache_key="abc")
        assert "prompt_cache_key" not in json.loads(encode(CARD, request, stream=False))
        able = replace(CARD, capabilities=frozenset({"prompt_cache_key"}))
        assert json.loads(encode(able, request, stream=False))["prompt_cache_key"] == "abc"
        assert "prompt_cache_key" not in json.loads(encode(able, request_of("a"), stream=False))

    def test_a_plain_prompt_is_the_last_user_turn(self) -> None:
        card = replace(CARD, prompt="plain")
        body = json.loads(encode(card, request_of("first", "second"), stream=False))
        assert body["messages"] == [{"role": "user", "content": "second"}]
        assert bound(card, request_of("x" * 500, "y")).input_tokens < 500

    @given(st.text(), st.text())
    def test_the_bound_covers_every_byte_and_the_template(self, first: str, second: str) -> None:
        usage = bound(CARD, request_of(first, second))
        size = len((first + second).encode("utf-8", "surrogatepass"))
        assert usage.input_tokens > size
        assert usage.output_tokens == 50

    def test_the_bound_covers_the_schema(self) -> None:
        schema = {"type": "json_schema", "json_schema": {"description": "x" * 1000}}
        plain = bound(CARD, request_of("hello")).input_tokens
        bigger = bound(CARD, request_of("hello", response_format=schema)).input_tokens
        assert bigger >= plain + 1000


class TestAnswers:
    def test_a_good_answer(self) -> None:
        reply = read_answer(body_of())
        assert (reply.text, reply.finish_reason, reply.fault) == ("hello you", "stop", None)
        assert reply.usage == Usage(7, 3)

    def test_an_unknown_finish_reason_is_passed_through_cut(self) -> None:
        assert read_answer(body_of(finish="eos_9")).finish_reason == "eos_9"
        assert len(read_answer(body_of(finish="x" * 1000)).finish_reason or "") == 64

    @pytest.mark.parametrize(
        ("body", "fault", "detail"),
        [
            (b"", CallFault.MALFORMED, "expected JSON"),
            (b"<html>oops</html>", CallFault.MALFORMED, "oops"),
            (body_of()[:-9], CallFault.MALFORMED, "expected JSON"),
            (b"[]", CallFault.MALFORMED, "list"),
            (b'{"a": "\xff"}', CallFault.MALFORMED, "not UTF-8 at byte 7"),
            (b"[" * 100_000, CallFault.MALFORMED, "expected JSON"),
            (b'{"a": ' + b"9" * 5000 + b"}", CallFault.MALFORMED, "expected JSON"),
            (b"{}", CallFault.MALFORMED, "expected one choice"),
            (b'{"choices": []}', CallFault.MALFORMED, "expected one choice"),
            (b'{"choices": "text"}', CallFault.MALFORMED, "list of choices"),
            (b'{"choices": [1]}', CallFault.MALFORMED, "choice"),
            (b'{"choices": [{}]}', CallFault.MALFORMED, "message"),
            (body_of(content=5), CallFault.MALFORMED, "content"),
            (body_of(content=[{"type": "text"}]), CallFault.MALFORMED, "content"),
            (body_of(finish=5), CallFault.MALFORMED, "finish_reason"),
            (b'{"error": {"message": "no luck"}}', CallFault.MALFORMED, "no luck"),
            (b'{"error": "no luck"}', CallFault.MALFORMED, "no luck"),
            (body_of(content=""), CallFault.EMPTY, "no text"),
            (body_of(content=" \n"), CallFault.EMPTY, "no text"),
            (body_of(content=None, finish="length"), CallFault.EMPTY, "max_tokens"),
            (body_of(content=None, tool_calls=[{}]), CallFault.MALFORMED, "tool call"),
            (body_of(content=None, refusal="I cannot"), CallFault.REFUSED_INPUT, "refused"),
            (body_of(content="", finish="content_filter"), CallFault.REFUSED_INPUT, "refused"),
        ],
    )
    def test_what_is_no_answer(self, body: bytes, fault: CallFault, detail: str) -> None:
        reply = read_answer(body)
        assert reply.fault is fault
        assert detail in reply.detail
        assert reply.text == ""

    def test_each_choice_that_is_passed_on_says_something(self) -> None:
        choices = [{"message": {"content": "a"}, "finish_reason": "stop"}, {"message": "b"}]
        body = json.dumps({"choices": choices, "usage": USAGE}).encode()
        assert read_answer(body).fault is None
        reply = read_answer(body, relayed=True)
        assert (reply.fault, reply.usage) == (CallFault.MALFORMED, Usage(7, 3))

    def test_what_was_billed_is_known_though_there_is_no_text(self) -> None:
        assert read_answer(body_of(content="")).usage == Usage(7, 3)

    def test_half_a_surrogate_pair_becomes_writable(self) -> None:
        reply = read_answer(b'{"choices": [{"message": {"content": "a\\ud83d b \\ud83d\\ude00"}}]}')
        assert reply.text == "a\ufffd b \U0001f600"

    @given(st.binary())
    def test_any_bytes_are_a_fault(self, body: bytes) -> None:
        assert read_answer(body).fault is not None

    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(
                    st.sampled_from(
                        [
                            "choices",
                            "message",
                            "content",
                            "delta",
                            "usage",
                            "error",
                            "finish_reason",
                            "tool_calls",
                        ]
                    ),
                    inner,
                ),
            ),
            max_leaves=30,
        )
    )
    def test_any_json_is_an_answer_or_a_fault(self, value: object) -> None:
        reply = read_answer(json.dumps(value).encode())
        assert (reply.fault is None) == bool(reply.text)
        reader = StreamReader()
        reader.feed(event_of(value))
        assert reader.reply().fault is not None


class TestLogProbabilities:
    @staticmethod
    def choice(logprobs: object) -> dict[str, object]:
        message = {"content": "hello you"}
        return {"message": message, "finish_reason": "stop", "logprobs": logprobs}

    @staticmethod
    def tokens(*values: object) -> dict[str, object]:
        return {"content": [{"token": "x", "logprob": value} for value in values]}

    def test_asked_for_only_where_the_card_allows(self) -> None:
        request = request_of("hello", logprobs=True)
        refusing = replace(CARD, capabilities=frozenset({"no_logprobs"}))
        assert json.loads(encode(CARD, request, stream=False))["logprobs"] is True
        assert "logprobs" not in json.loads(encode(refusing, request, stream=False))

    def test_the_mean_over_tokens(self) -> None:
        body = json.dumps({"choices": [self.choice(self.tokens(-0.5, -1, 0))], "usage": USAGE})
        assert read_answer(body.encode()).logprob == -0.5

    @pytest.mark.parametrize(
        "told",
        [
            None,
            [],
            "none",
            {},
            {"content": None},
            {"content": []},
            {"content": "x"},
            {"content": [None]},
            {"content": [{"token": "x"}]},
            {"content": [{"logprob": -0.5}, {"logprob": "-1"}]},
            {"content": [{"logprob": 0.5}]},
            {"content": [{"logprob": True}]},
            {"content": [{"logprob": float("nan")}]},
            {"content": [{"logprob": float("-inf")}]},
            {"content": [{"logprob": -(10**400)}]},
        ],
    )
    def test_what_is_not_told_or_not_believed(self, told: object) -> None:
        reply = read_answer(json.dumps({"choices": [self.choice(told)], "usage": USAGE}).encode())
        assert reply.text == "hello you"
        assert reply.logprob is None

    def test_of_a_stream_they_are_gathered(self) -> None:
        def piece(text: str, logprob: float) -> bytes:
            choice = {"delta": {"content": text}, "logprobs": self.tokens(logprob)}
            return event_of({"choices": [choice]})

        _, reader = read_stream(
            piece("a", -1.0) + piece("b", -2.0) + piece_of(finish="stop") + b"data: [DONE]\n\n"
        )
        assert reader.reply().logprob == -1.5


class TestUsage:
    @pytest.mark.parametrize(
        ("raw", "usage"),
        [
            (USAGE, Usage(7, 3)),
            ({"prompt_tokens": 7, "completion_tokens": 3}, Usage(7, 3)),
            (USAGE | {"prompt_tokens_details": {"cached_tokens": 4}}, Usage(7, 3, 4)),
            (USAGE | {"prompt_tokens_details": None}, Usage(7, 3)),
            (USAGE | {"completion_tokens_details": {"reasoning_tokens": 2}}, Usage(7, 3, 0, 2)),
            (
                {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 30}
                | {"completion_tokens_details": {"reasoning_tokens": 20}},
                Usage(7, 23, 0, 20),
            ),
            ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 5}, Usage(7, 3)),
        ],
    )
    def test_believed(self, raw: object, usage: Usage) -> None:
        assert read_usage(raw) == (usage, None)

    @pytest.mark.parametrize(
        "raw",
        [
            {},
            [],
            "7",
            USAGE | {"completion_tokens": -1},
            USAGE | {"prompt_tokens": -7},
            USAGE | {"total_tokens": -7},
            USAGE | {"prompt_tokens": None},
            USAGE | {"prompt_tokens": "7"},
            USAGE | {"prompt_tokens": 7.5},
            USAGE | {"prompt_tokens": True},
            USAGE | {"completion_tokens": MAX_TOKENS_BELIEVED + 1},
            USAGE | {"prompt_tokens_details": {"cached_tokens": 8}},
            USAGE | {"prompt_tokens_details": {"cached_tokens": -1}},
            USAGE | {"prompt_tokens_details": 8},
            USAGE | {"completion_tokens_details": {"reasoning_tokens": 4}},
        ],
    )
    def test_not_believed(self, raw: object) -> None:
        usage, doubt = read_usage(raw)
        assert usage is None
        assert doubt is not None
        assert doubt.startswith("usage not believed")

    def test_missing(self) -> None:
        assert read_usage(None) == (None, None)

    def test_no_output_tokens_for_a_text_is_not_believed(self) -> None:
        reply = read_answer(body_of(usage={"prompt_tokens": 7, "completion_tokens": 0}))
        assert reply.text
        assert reply.usage is None
        assert reply.doubt == "usage not believed: 0 output tokens for a text"


class TestEvents:
    @given(st.data())
    def test_chunk_boundaries_do_not_matter(self, data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(WHOLE) - 1))))
        chunks = [WHOLE[a:b] for a, b in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True)]
        pieces, reader = read_stream(*chunks)
        assert pieces == ["hel", "lo\n"]
        assert reader.done
        assert reader.reply() == read_stream(WHOLE)[1].reply()
        assert reader.reply().usage == Usage(7, 3)

    @given(st.lists(st.binary(max_size=40), max_size=20))
    def test_any_bytes_are_no_answer_and_no_crash(self, chunks: list[bytes]) -> None:
        _, reader = read_stream(*chunks)
        assert reader.reply().fault is not None

    def test_a_cut_at_any_byte_is_a_fault(self) -> None:
        for end in range(len(WHOLE)):
            _, reader = read_stream(WHOLE[:end])
            assert not reader.done
            assert reader.reply().fault in {CallFault.CUT, CallFault.MALFORMED}, end

    def test_line_ends_comments_and_other_fields(self) -> None:
        raw = b": ping\r\nevent: x\r\nid: 3\r\ndata:one\r\ndata: two\r\n\r\n\n\ndata: three\n\n"
        assert EventParser().feed(raw) == [b"one\ntwo", b"three"]

    def test_an_endless_event_is_refused(self) -> None:
        for chunk in (b"x" * 1024, b"data: " + b"x" * 1017 + b"\n"):
            parser = EventParser()
            with pytest.raises(ValueError, match="more than"):
                [parser.feed(chunk) for _ in range(MAX_EVENT_BYTES // 1000)]


class TestStreams:
    @pytest.mark.parametrize(
        ("raw", "fault", "detail"),
        [
            (b"", CallFault.MALFORMED, "expected a stream"),
            (b"<html>oops</html>", CallFault.MALFORMED, "oops"),
            (b'{"error": {"message": "no luck"}}\n', CallFault.MALFORMED, "no luck"),
            (piece_of("a"), CallFault.CUT, "[DONE]"),
            (piece_of("a", "stop"), CallFault.CUT, "[DONE]"),
            (piece_of("a") + b"data: [DONE]\n\n", CallFault.CUT, "finish reason"),
            (piece_of(finish="stop") + b"data: [DONE]\n\n", CallFault.EMPTY, "no text"),
            (piece_of("a") + b"data: {oops\n\n" + WHOLE, CallFault.MALFORMED, "oops"),
            (piece_of("a") + b"data: \xff\n\n" + WHOLE, CallFault.MALFORMED, "not UTF-8"),
            (
                piece_of("a") + event_of({"error": {"message": "no luck"}}) + WHOLE,
                CallFault.MALFORMED,
                "no luck",
            ),
            (
                event_of({"choices": [{"delta": {"tool_calls": [{}]}}]})
                + piece_of(finish="tool_calls")
                + b"data: [DONE]\n\n",
                CallFault.MALFORMED,
                "tool call",
            ),
        ],
    )
    def test_what_is_no_answer(self, raw: bytes, fault: CallFault, detail: str) -> None:
        _, reader = read_stream(raw)
        reply = reader.reply()
        assert reply.fault is fault
        assert detail in reply.detail

    @pytest.mark.parametrize("choices", [[5], ["a"], "abc", [{"delta": "a"}], [{}, 5]])
    def test_what_is_no_chunk_is_not_passed_on(self, choices: object) -> None:
        reader = StreamReader(relayed=True)
        reader.feed(piece_of("a") + event_of({"choices": choices}) + WHOLE)
        assert len(reader.chunks) == 1
        assert reader.reply().fault is CallFault.MALFORMED

    def test_nothing_counts_after_done(self) -> None:
        pieces, reader = read_stream(WHOLE + piece_of("more"))
        assert pieces == ["hel", "lo\n"]
        assert reader.reply().text == "hello\n"

    def test_a_running_count_is_not_taken_for_the_bill(self) -> None:
        running = {"prompt_tokens": 7, "completion_tokens": 1}
        _, reader = read_stream(piece_of("a", usage=running))
        assert reader.usage is None
        reader.feed(piece_of("b", "stop", usage=running | {"completion_tokens": 2}))
        assert reader.usage == Usage(7, 2)

    def test_a_final_usage_is_known_though_the_end_is_missing(self) -> None:
        _, reader = read_stream(WHOLE.removesuffix(b"data: [DONE]\n\n"))
        assert reader.reply().fault is CallFault.CUT
        assert reader.reply().usage == Usage(7, 3)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "no luck", "code": 1}}, "no luck"),
        ({"error": "no luck"}, "no luck"),
        ({"message": "no luck"}, "no luck"),
        ({"detail": "no luck"}, "no luck"),
        ({"error": {"code": 7}}, '{"code": 7}'),
        ({"detail": [{"loc": ["x"]}]}, '[{"loc": ["x"]}]'),
    ],
)
def test_the_words_of_an_error_are_found(body: dict[str, object], text: str) -> None:
    assert error_text(body) == text
