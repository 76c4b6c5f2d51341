"""Pages in a browser on this machine: without a key they get nothing, unless the operator says so.

What is sent are the requests that browsers make: those that need no leave of the server, and those
of a name that somebody points to this machine.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateways import ADMIN, Served, gateway
from pools import pool_at, serving
from r2reasoner.cli.app import app
from r2reasoner.gateway.gateway import Options
from r2reasoner.mock import MockProvider
from raw_http import Reply, connected, head

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "small", "messages": [{"role": "user", "content": "a"}]}).encode()
JSON = "Content-Type: application/json"
PAGE = "https://chat.example.org"
GETS = ("/v1/models", "/v1/models/small", "/v1/traces/x", "/v1/traces/x/events", "/metrics")


@pytest.fixture
def mock() -> MockProvider:
    return MockProvider()


@pytest.fixture
def served(mock: MockProvider, tmp_path: Path) -> Iterator[Served]:
    with serving(mock) as base_url, gateway(pool_at(base_url), tmp_path / "l.db") as opened:
        yield opened


def ask(served: Served, first: str, *lines: str, host: str = "localhost:80") -> Reply:
    body = BODY if first.startswith("POST") else b""
    size = [f"Content-Length: {len(body)}"] if body else []
    with connected(served.root) as raw:
        raw.send(head(f"{first} HTTP/1.1", *lines, *size, host=host) + body)
        reply = raw.reply()
    assert reply is not None
    return reply


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Type: text/plain;charset=UTF-8", f"Origin: {PAGE}"),
        ("Content-Type: application/x-www-form-urlencoded", f"Origin: {PAGE}"),
        ("Content-Type: multipart/form-data; boundary=x", "Origin: null"),
        ("Content-Type: text/plain",),
        (f"Origin: {PAGE}",),
        (),
        (JSON, f"Origin: {PAGE}"),
        (JSON, "Origin: null"),
        (JSON, "Origin: http://localhost:8081"),
        (JSON, "Origin: http://localhost:80.example.org"),
        (JSON, "Origin: https://localhost"),
        (JSON, f"Origin: {PAGE}", "Authorization: Bearer none"),
    ],
    ids="; ".join,
)
def test_another_sites_page_spends_nothing(
    served: Served, mock: MockProvider, lines: tuple[str, ...]
) -> None:
    reply = ask(served, f"POST {CHAT}", *lines)
    assert (reply.status, reply.error()["code"]) in {(415, "not_json"), (403, "key_needed")}
    assert mock.books == []


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.org",
        "evil.example.org:8080",
        "127.0.0.1.example.org",
        "localhost.example.org:8080",
        "0.0.0.0:8080",
        "192.168.0.7:8080",
        "[::2]:8080",
        "[",
        "a@localhost:80@example.org",
        "",
    ],
)
def test_a_name_that_is_pointed_here_opens_nothing(
    served: Served, mock: MockProvider, host: str
) -> None:
    """Its page is of the same site as what it asks, so it may send and read what it likes."""
    replies = [ask(served, f"POST {CHAT}", JSON, f"Origin: http://{host}", host=host)]
    replies += [ask(served, f"GET {path}", host=host) for path in GETS]
    assert {(reply.status, reply.error()["code"]) for reply in replies} == {(403, "key_needed")}
    assert mock.books == []


@pytest.mark.parametrize(
    ("host", "lines"),
    [
        ("localhost", ()),
        ("LOCALHOST:8080", ()),
        ("127.0.0.1:8080", ()),
        ("127.9.9.9", ()),
        ("[::1]:8080", ()),
        ("localhost:8080", ("Authorization: Bearer sk-of-another-service",)),
        ("localhost:8080", ("Origin: http://localhost:8080",)),
    ],
)
def test_programs_of_this_machine_are_let_in(
    served: Served, host: str, lines: tuple[str, ...]
) -> None:
    assert ask(served, f"POST {CHAT}", JSON, *lines, host=host).status == 200


def test_a_key_lets_in_from_everywhere(served: Served) -> None:
    """Who has the secret is no page that merely found an address."""
    _, secret = served.keys.create("one")
    for key in (secret, ADMIN):
        lines = (JSON, f"Origin: {PAGE}", f"Authorization: Bearer {key}")
        reply = ask(served, f"POST {CHAT}", *lines, host="gateway.example.org")
        assert reply.status == 200
        assert "access-control-allow-origin" not in reply.headers


class TestSitesThatTheOperatorNames:
    @pytest.fixture
    def served(self, mock: MockProvider, tmp_path: Path) -> Iterator[Served]:
        options = Options(allow_origins=(PAGE,))
        with (
            serving(mock) as base_url,
            gateway(pool_at(base_url), tmp_path / "l.db", options=options) as opened,
        ):
            yield opened

    def preflight(self, served: Served, origin: str) -> Reply:
        return ask(
            served,
            f"OPTIONS {CHAT}",
            f"Origin: {origin}",
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization,content-type,x-stainless-lang",
        )

    def test_may_ask_and_read(self, served: Served, mock: MockProvider) -> None:
        leave = self.preflight(served, PAGE)
        answer = ask(served, f"POST {CHAT}", JSON, f"Origin: {PAGE}")
        error = ask(served, f"POST {CHAT}?key=1", JSON, f"Origin: {PAGE}")
        assert (leave.status, answer.status, error.status) == (200, 200, 400)
        for reply in (leave, answer, error):
            assert reply.headers["access-control-allow-origin"] == PAGE
            assert "access-control-allow-credentials" not in reply.headers
        assert "x-stainless-lang" in leave.headers["access-control-allow-headers"]
        assert "x-r2-cost" in answer.headers["access-control-expose-headers"]
        assert len(mock.books) == 1

    @pytest.mark.parametrize("origin", ["null", "https://chat.example.org.evil.org", "http://a"])
    def test_are_no_others(self, served: Served, mock: MockProvider, origin: str) -> None:
        leave = self.preflight(served, origin)
        answer = ask(served, f"POST {CHAT}", JSON, f"Origin: {origin}")
        assert (leave.status, answer.status) == (400, 403)
        for reply in (leave, answer):
            assert "access-control-allow-origin" not in reply.headers
        assert mock.books == []

    def test_are_asked_at_this_machines_names_only(self, served: Served) -> None:
        reply = ask(served, f"POST {CHAT}", JSON, f"Origin: {PAGE}", host="chat.example.org")
        assert reply.status == 403

    @pytest.mark.parametrize("site", ["*", "chat.example.org", "https://*.example.org", f"{PAGE}/"])
    def test_are_named_in_full(self, site: str, tmp_path: Path) -> None:
        options = ["serve", "--port", "0", "--db", str(tmp_path / "l.db"), "--allow-origin", site]
        done = CliRunner().invoke(app, options)
        assert done.exit_code != 0
        assert "expected one like https://chat.example.org" in str(done.exception or done.output)
