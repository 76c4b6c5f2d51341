"""What no honest client sends, as raw bytes on a real socket: refused, and never dispatched."""

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateways import Served, able_pool, gateway
from pools import serving
from r2reasoner.gateway.connection import MAX_HEAD_BYTES, MAX_REQUEST_BYTES, Connection
from r2reasoner.gateway.wire import MAX_BODY_BYTES, MOST_DEPTH
from r2reasoner.mock import MockProvider
from raw_http import Reply, connected, head, post

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "a b c"}
BODY = json.dumps({"model": "small", "messages": [USER]}).encode()
GET = (
    "/v1/models",
    "/v1/models/small",
    "/v1/traces/x",
    "/v1/traces/x/events",
    "/healthz",
    "/metrics",
)
BODIES = {CHAT: BODY, "/v1/responses": b'{"model": "small", "input": "a b c"}'}
POST = tuple(BODIES)


def with_field(name: str, value: bytes) -> Callable[[bytes], bytes]:
    """Return what adds a field, as bytes, to a body."""
    return lambda body: body[:-1] + b', "%b": %b}' % (name.encode(), value)


BAD_BODIES: dict[str, Callable[[bytes], bytes]] = {
    "too large": lambda body: b" " * (MAX_BODY_BYTES + 1) + body,
    "empty": lambda body: b"",
    "null": lambda body: b"null",
    "nul": lambda body: body + b"\0",
    "no UTF-8": lambda body: body.replace(b"a", b"\xff"),
    "overlong UTF-8": lambda body: body.replace(b"a", b"\xc0\xaf"),
    "cut": lambda body: body[:-1],
    "twice": lambda body: body + body,
    "list": lambda body: b"[" + body + b"]",
    "nested": with_field("metadata", b"[" * MOST_DEPTH + b"]" * MOST_DEPTH),
    "nested deep": with_field("metadata", b"[" * 10_000 + b"]" * 10_000),
    "objects nested deep": with_field("r2", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "not a number": with_field("temperature", b"NaN"),
    "infinite": with_field("temperature", b"-Infinity"),
    "infinite by its size": with_field("metadata", b'{"a": 1e999}'),
    "a number of 400 digits": with_field("temperature", b"9" * 400),
    "a number of 5,000 digits": with_field("metadata", b'{"a": %b}' % (b"9" * 5000)),
    "dollars of 5,000 digits": with_field("r2", b'{"max_cost": "%b"}' % (b"9" * 5000)),
    "dollars too small": with_field("r2", b'{"max_cost": 1e-400}'),
    "compressed": gzip.compress,
}


@pytest.fixture(scope="module")
def mock() -> MockProvider:
    return MockProvider()


@pytest.fixture(scope="module")
def served(mock: MockProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    db = tmp_path_factory.mktemp("hostile") / "l.db"
    with serving(mock) as base_url, gateway(able_pool(base_url), db, admin=False) as opened:
        yield opened


@pytest.fixture
def untouched(mock: MockProvider) -> Iterator[None]:
    """Nothing is dispatched in this test."""
    before = len(mock.books)
    yield
    assert len(mock.books) == before


def ask(served: Served, data: bytes, *, to: str = "GET") -> Reply:
    """Send bytes and return the reply, after which the server is as before."""
    with connected(served.root) as raw:
        raw.send(data)
        reply = raw.reply(to=to)
    assert reply is not None
    with connected(served.root) as raw:
        raw.send(head("GET /healthz HTTP/1.1"))
        alive = raw.reply()
    assert alive is not None
    assert alive.status == 200
    return reply


class TestBodies:
    @pytest.mark.parametrize("path", POST)
    @pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
    @pytest.mark.parametrize("kind", BAD_BODIES)
    def test_are_refused(
        self, served: Served, untouched: None, path: str, chunked: bool, kind: str
    ) -> None:
        reply = ask(served, post(path, BAD_BODIES[kind](BODIES[path]), chunked=chunked))
        assert reply.status == (413 if kind == "too large" else 400)
        error = reply.error()
        assert error["type"] == "invalid_request_error"
        assert error["code"] != "unknown_parameter"

    @pytest.mark.parametrize("size", ["1000000000000", "9" * 400, "-1", "0x10", "\xb2", "1, 2", ""])
    def test_sizes_that_are_none(self, served: Served, untouched: None, size: str) -> None:
        """Too large, or no number: the body is not waited for."""
        reply = ask(
            served,
            head(
                f"POST {CHAT} HTTP/1.1", "Content-Type: application/json", f"Content-Length: {size}"
            ),
        )
        assert reply.status in (400, 413)
        reply.error()

    @pytest.mark.parametrize(
        "kind",
        [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a",
            "application/jsonp",
            "text/plain; application/json",
        ],
    )
    def test_are_json_by_their_type(self, served: Served, untouched: None, kind: str) -> None:
        lines = [f"Content-Type: {kind}"] if kind else []
        data = head(f"POST {CHAT} HTTP/1.1", *lines, f"Content-Length: {len(BODY)}") + BODY
        reply = ask(served, data)
        assert (reply.status, reply.error()["code"]) == (415, "not_json")

    @pytest.mark.parametrize("kind", ["Application/JSON", "application/json ; charset=utf-8"])
    def test_of_other_spellings_of_the_type(self, served: Served, kind: str) -> None:
        data = head(
            f"POST {CHAT} HTTP/1.1", f"Content-Type: {kind}", f"Content-Length: {len(BODY)}"
        )
        assert ask(served, data + BODY).status == 200

    def test_with_a_key_twice_are_read_once(self, served: Served, mock: MockProvider) -> None:
        """What was checked is what is sent: the last, as other readers of JSON have it."""
        twice = b'{"model": "large", "model": "small", "messages": [], "messages": [%b]}'
        reply = ask(served, post(CHAT, twice % json.dumps(USER).encode()))
        assert reply.status == 200
        assert mock.books[-1].model == "small"


NASTY = {
    "nul": "a\x00b",
    "half of a pair": "a\ud800b",
    "halves the wrong way round": "\udc00\ud800",
    "not a character": "\uffff\ufdd0",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x85",
    "right to left": "\u202e\u2066\u200f",
    "line ends of others": "a\x85b\u2028c\u2029d\r\n\r\ndata: [DONE]\n\n",
    "blank": " \n\t",
    "empty": "",
}


def places(text: str) -> dict[str, dict[str, Any]]:
    """Return a body with a text in each of its places."""
    call = {"id": text, "type": "function", "function": {"name": text, "arguments": text}}
    schema = {"name": text, "schema": {text: text}}
    fields: dict[str, dict[str, Any]] = {
        "model": {"model": text},
        "unknown": {text: text},
        "role": {"messages": [{"role": text, "content": "a"}]},
        "content": {"messages": [{"role": "user", "content": text}]},
        "part": {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
        "earlier": {"messages": [{"role": "assistant", "content": text, "name": text}, USER]},
        "tool call": {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": text, "content": text},
            ]
        },
        "tool": {"tools": [{"type": "function", "function": {"name": text, text: text}}]},
        "schema": {"response_format": {"type": "json_schema", "json_schema": schema}},
        "stop": {"stop": [text]},
        "user": {"user": text, "metadata": {text: text}, "prompt_cache_key": text},
        "effort": {"reasoning_effort": text, "verbosity": text},
        "wish": {"r2": {text: 1}},
        "cost": {"r2": {"max_cost": text}},
    }
    return {
        where: {"model": "medium", "messages": [USER], **more} for where, more in fields.items()
    }


def check_events(body: bytes) -> None:
    """Hold a stream to its form, as clients read it that split lines as Python does."""
    *lines, done, _ = body.decode().splitlines()
    assert done == "data: [DONE]"
    assert all("error" not in json.loads(line.removeprefix("data: ")) for line in lines[::2])
    assert not any(lines[1::2])


@pytest.mark.parametrize("model", ["medium", "r2reasoner"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_texts_that_others_trip_over(
    served: Served, mock: MockProvider, text: str, stream: bool, model: str
) -> None:
    """Each is answered, and its trace is kept; or it is refused before anything is sent."""
    for where, body in places(text).items():
        before = len(mock.books)
        body |= {"stream": stream} | ({"model": model} if body["model"] == "medium" else {})
        reply = ask(served, post(CHAT, json.dumps(body).encode()))
        assert reply.status in (200, 400, 404), (where, reply)
        if reply.status != 200:
            reply.error()
            assert len(mock.books) == before, where
            continue
        if stream:
            check_events(reply.body)
        trace = ask(served, head(f"GET /v1/traces/{reply.headers['x-r2-trace-id']} HTTP/1.1"))
        assert trace.status == 200, where
        json.loads(trace.body)


class TestHeads:
    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (head("GET /v1/models HTTP/1.1", *[f"X-{i}: {'a' * 90}" for i in range(400)]), 431),
            (head("GET /v1/models HTTP/1.1", f"X-A: {'a' * MAX_HEAD_BYTES}"), 431),
            (head(f"GET /v1/models?{'a' * MAX_HEAD_BYTES} HTTP/1.1"), 431),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (head("FETCH /healthz HTTP/1.1"), 400),
            (head("GET /healthz HTTP/1.1", "X A: b"), 400),
            (head("GET /healthz HTTP/1.1", "X-A: b\x00c"), 400),
            (head("GET /healthz HTTP/1.1", "X-A: b", " folded"), 400),
            (head("GET /h\xc3\xa9althz HTTP/1.1"), 400),
            (head("CONNECT example.org:443 HTTP/1.1"), 400),
            (
                head(f"POST {CHAT} HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 5")
                + b"0\r\n\r\n",
                400,
            ),
            (
                head(f"POST {CHAT} HTTP/1.1", "Content-Length: 5", "Content-Length: 6") + BODY,
                400,
            ),
            (
                head(f"POST {CHAT} HTTP/1.1", "Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n",
                400,
            ),
            (post(CHAT, b"")[:-4] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ],
        ids=lambda value: value if isinstance(value, int) else repr(value[:50]),
    )
    def test_are_refused(self, served: Served, untouched: None, data: bytes, status: int) -> None:
        with connected(served.root) as raw:
            raw.send(data)
            reply = raw.reply()
            assert reply is not None
            assert reply.status == status
            assert reply.error()["type"] == "invalid_request_error"
            assert raw.ended()

    def test_without_an_end_are_not_kept(self, served: Served, untouched: None) -> None:
        """A header or an address that goes on and on is cut off, long before a request ends."""
        for begin, more in ((head("GET / HTTP/1.1")[:-2], b"X: a\r\n"), (b"GET /", b"aaaaaa")):
            with connected(served.root) as raw:
                raw.send(begin)
                for _ in range(200):
                    raw.send(more * 10_000)
                reply = raw.reply()
            assert reply is None or reply.status == 431

    def test_trailers_are_no_headers(self, served: Served) -> None:
        data = post(CHAT, BODY, chunked=True)[:-2] + b"Authorization: Bearer r2-wrong\r\n\r\n"
        assert ask(served, data).status == 200


HALVES = {
    "line": b"\r\n",
    "address": b"GET /v1/mo",
    "head": head("GET /v1/models HTTP/1.1")[:-2],
    "body": post(CHAT, BODY)[:-9],
}


class TestTheConnection:
    def test_requests_one_after_the_other_without_waiting(self, served: Served) -> None:
        """Three at once, and half of a fourth: they are answered in their order."""
        again = post(CHAT, BODY)
        with connected(served.root) as raw:
            raw.send(
                head("GET /v1/models HTTP/1.1") + again + head("GET /no HTTP/1.1") + again[:90]
            )
            got = [raw.reply() for _ in range(3)]
            raw.send(again[90:])
            got.append(raw.reply())
        assert [reply and reply.status for reply in got] == [200, 200, 404, 200]
        assert got[0] is not None
        assert json.loads(got[0].body)["object"] == "list"

    def test_of_http_1_0_ends_after_the_answer(self, served: Served) -> None:
        for data in (
            head("GET /v1/models HTTP/1.0"),
            post(CHAT, BODY).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        ):
            with connected(served.root) as raw:
                raw.send(data)
                reply = raw.reply()
                assert reply is not None
                assert reply.status == 200
                assert reply.headers["connection"] == "close"
                assert raw.ended()

    def test_is_asked_whether_to_go_on(self, served: Served) -> None:
        first, rest = post(CHAT, BODY, "Expect: 100-continue").split(b"\r\n\r\n")
        with connected(served.root) as raw:
            raw.send(first + b"\r\n\r\n")
            go_on = raw.reply()
            raw.send(rest)
            reply = raw.reply()
        assert go_on is not None
        assert reply is not None
        assert (go_on.status, reply.status) == (100, 200)

    def test_is_told_at_once_where_it_need_not_go_on(self, served: Served, untouched: None) -> None:
        size = f"Content-Length: {MAX_REQUEST_BYTES}"
        lines = ("Content-Type: application/json", size, "Expect: 100-continue")
        assert ask(served, head(f"POST {CHAT} HTTP/1.1", *lines)).status == 413

    @pytest.mark.parametrize("after", [False, True], ids=["first", "second"])
    @pytest.mark.parametrize("half", HALVES)
    def test_that_is_silent_is_ended(
        self,
        served: Served,
        untouched: None,
        monkeypatch: pytest.MonkeyPatch,
        half: str,
        after: bool,
    ) -> None:
        monkeypatch.setattr(Connection, "within_s", 0.2)
        with connected(served.root) as raw:
            if after:
                raw.send(head("GET /v1/models HTTP/1.1"))
                assert raw.reply() is not None
            raw.send(HALVES[half])
            reply = raw.reply()
            assert raw.ended()
        assert reply is not None
        assert (reply.status, reply.error()["type"]) == (408, "invalid_request_error")

    def test_that_never_asks_is_ended(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Connection, "within_s", 0.2)
        with connected(served.root) as raw:
            reply = raw.reply()
            assert raw.ended()
        assert reply is not None
        assert reply.status == 408

    def test_that_sends_bit_by_bit_is_ended(
        self, served: Served, untouched: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Sending something now and then does not keep a request open."""
        monkeypatch.setattr(Connection, "within_s", 0.3)
        with connected(served.root) as raw:
            raw.socket.settimeout(0.05)
            for byte in head("GET /v1/models HTTP/1.1", "X-A: " + "a" * 500):
                raw.send(bytes([byte]))
                try:
                    reply = raw.reply()
                    break
                except TimeoutError:
                    continue
            else:
                pytest.fail("it was never ended")
        assert reply is not None
        assert reply.status == 408

    def test_whose_body_never_ends_is_ended(self, served: Served, untouched: None) -> None:
        piece = b"10000\r\n" + b"a" * (1 << 16) + b"\r\n"
        lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
        with connected(served.root) as raw:
            raw.send(head(f"POST {CHAT} HTTP/1.1", *lines))
            for _ in range(2 * MAX_REQUEST_BYTES >> 16):
                raw.send(piece)
            try:
                raw.socket.sendall(piece * 64)
                gone = raw.ended()
            except (BrokenPipeError, ConnectionResetError):
                gone = True
        assert gone

    def test_a_long_answer_is_not_a_slow_request(
        self, mock: MockProvider, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is sent ahead, while an answer is made, waits its turn."""
        monkeypatch.setattr(Connection, "within_s", 0.05)
        monkeypatch.setattr(mock, "latency_s", 0.5)
        with connected(served.root) as raw:
            raw.send(post(CHAT, BODY))
            raw.send(b"\r\n" + head("GET /v1/models HTTP/1.1")[:-2])
            reply = raw.reply()
        assert reply is not None
        assert reply.status == 200


class TestMethodsAndPaths:
    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
    @pytest.mark.parametrize("path", [*GET, *POST])
    def test_other_methods(self, served: Served, untouched: None, method: str, path: str) -> None:
        reply = ask(served, head(f"{method} {path} HTTP/1.1"))
        assert reply.status == 405
        reply.error()
        assert set(reply.headers["allow"].split(", ")) <= {"GET", "HEAD", "POST"}
        assert not any(name.startswith("access-control-") for name in reply.headers)

    @pytest.mark.parametrize("path", GET)
    def test_head_is_get_without_a_body(self, served: Served, path: str) -> None:
        got = ask(served, head(f"GET {path} HTTP/1.1"))
        reply = ask(served, head(f"HEAD {path} HTTP/1.1"), to="HEAD")
        assert reply.status == got.status
        assert reply.headers["content-type"] == got.headers["content-type"]

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/v1/models/..%2f..%2fhealthz", 404),
            ("/v1/models/../../healthz", 404),
            ("/v1/models/%2e%2e/%2e%2e/healthz", 404),
            ("/v1/models/%00", 404),
            ("/v1/models/%ff%fe", 404),
            ("/v1/models/%ed%a0%80", 404),
            ("/v1/models/", 404),
            ("/v1/models/http://127.0.0.1/v1", 404),
            ("/v1/models/" + "a" * 20_000, 404),
            ("/v1/models/%", 404),
            ("/v1/traces/%00", 404),
            ("/v1/traces/%2e%2e%2fmodels", 404),
            ("/v1/traces/%25/events", 404),
            ("/v1/traces/_/events", 404),
            ("/static/..%2f__init__.py", 404),
            ("/static/../__init__.py", 404),
            ("/static/%2e%2e/session.py", 404),
            ("/static//etc/passwd", 404),
            ("/static/%00", 404),
            ("/static/" + "a" * 5000, 404),
            ("//v1/models", 404),
            ("/V1/models", 404),
            ("/v1/chat/completions?stream=true", 405),
            ("*", 404),
        ],
    )
    def test_paths(self, served: Served, untouched: None, path: str, status: int) -> None:
        reply = ask(served, head(f"GET {path} HTTP/1.1"))
        assert reply.status == status
        reply.error()

    def test_an_upgrade_is_not_made(self, served: Served) -> None:
        lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        assert ask(served, head("GET /v1/models HTTP/1.1", *lines, key)).status == 200
