"""Behind a proxy: whose word is taken for an address, and deploy/'s nginx and Caddy as they are.

The tests that run nginx or Caddy are skipped where it is not installed.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateways import ADMIN, Served, gateway
from pools import pool_at
from r2reasoner.gateway.dashboard.session import TRIES
from r2reasoner.gateway.wire import MAX_BODY_BYTES
from r2reasoner.mock import Fault, MockProvider

DEPLOY = Path(__file__).parents[2] / "deploy"
HERE = "127.0.0.1"
HELLO = [{"role": "user", "content": "a b c"}]
NAME = "r2.example.org"


async def log_in(root: str, key: str, **headers: str) -> tuple[int, str]:
    """Return the status of a login, and the cookie that it sets."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{root}/login", data={"key": key}, headers=headers, allow_redirects=False
        ) as response,
    ):
        return response.status, response.headers.get("set-cookie", "")


async def lock_out(root: str, address: str) -> None:
    for _ in range(TRIES):
        assert (await log_in(root, "wrong", **{"x-forwarded-for": address}))[0] == 401


async def test_nobody_is_believed_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own switch
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            status, cookie = await log_in(served.root, ADMIN, **{"x-forwarded-proto": "https"})
            assert status == 303
            assert "Secure" not in cookie
            await lock_out(served.root, "192.0.2.1")
            again = await log_in(served.root, ADMIN, **{"x-forwarded-for": "192.0.2.2"})
    assert again[0] == 429


async def test_a_named_proxy_says_who_asks_and_how(tmp_path: Path) -> None:
    async with MockProvider() as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db", proxies=[HERE]) as served:
            status, cookie = await log_in(served.root, ADMIN, **{"x-forwarded-proto": "https"})
            assert status == 303
            assert "Secure" in cookie
            await lock_out(served.root, "192.0.2.1")
            # what a client wrote itself stands before what the proxy added
            lying = await log_in(served.root, ADMIN, **{"x-forwarded-for": "192.0.2.9, 192.0.2.1"})
            other = await log_in(served.root, ADMIN, **{"x-forwarded-for": "192.0.2.2"})
    assert (lying[0], other[0]) == (429, 303)


# --- the proxies' files in deploy/ --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that runs, with TLS, as the file in deploy/ sets it up."""

    process: "subprocess.Popen[bytes]"
    root: str

    @asynccontextmanager
    async def post(self, body: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.root}/v1/chat/completions",
                data=BytesIO(json.dumps(body).encode()),
                headers={"content-type": "application/json"},
                ssl=False,
            ) as response,
        ):
            yield response


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind((HERE, 0))
        port: int = bound.getsockname()[1]
        return port


def changed(file: str, **changes: str) -> str:
    """Return a file of deploy/ with some of its text replaced; all of it must be there."""
    text = (DEPLOY / file).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def nginx(folder: Path, port: int, upstream: str) -> list[str]:
    site = changed(
        "nginx.conf",
        **{
            "listen 443 ssl": f"listen {HERE}:{port} ssl",
            "127.0.0.1:8080": upstream,
            f"/etc/ssl/{NAME}/fullchain.pem": f"{folder}/cert.pem",
            f"/etc/ssl/{NAME}/privkey.pem": f"{folder}/key.pem",
        },
    )
    kept = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{name}_temp_path {folder}/{name};" for name in kept)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{site}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def caddy(folder: Path, port: int, upstream: str) -> list[str]:
    site = changed(
        "Caddyfile",
        **{
            f"{NAME} {{": f"https://{HERE}:{port} {{\n\ttls {folder}/cert.pem {folder}/key.pem",
            "127.0.0.1:8080": upstream,
        },
    )
    (folder / "Caddyfile").write_text(
        "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n" + site
    )
    return ["caddy", "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


PROXIES = (nginx, caddy)
Maker = Callable[[Path, int, str], list[str]]


def needs(make: Maker) -> None:
    if shutil.which(make.__name__) is None or shutil.which("openssl") is None:
        pytest.skip(f"no {make.__name__} here")


@contextmanager
def proxied(make: Maker, folder: Path, served: Served) -> Iterator[Proxy]:
    """Run a proxy in front of a gateway, with a certificate made for it."""
    certify = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subprocess.run(
        f"{certify} -subj /CN={NAME} -keyout key.pem -out cert.pem".split(),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    port = free_port()
    with (folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            make(folder, port, served.root.removeprefix("http://")),
            stdout=log,
            stderr=log,
            env=os.environ | {"HOME": str(folder)},
        )
    try:
        _wait_for(port, process, folder)
        yield Proxy(process, f"https://{HERE}:{port}")
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, (folder / "proxy.log").read_text()
        try:
            with socket.create_connection((HERE, port), timeout=5):
                return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise AssertionError((folder / "proxy.log").read_text())


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": HELLO, **more}


def deltas(line: bytes) -> list[str]:
    """Return the texts of an event's choices; none of what is no event."""
    found = json.loads(line[6:])["choices"] if line.startswith(b"data: {") else []
    return [choice["delta"].get("content") or "" for choice in found]


async def first_word(response: aiohttp.ClientResponse) -> str:
    async for line in response.content:
        if text := "".join(deltas(line)):
            return text
    raise AssertionError("the stream ended without a word")


@pytest.mark.parametrize("make", PROXIES)
async def test_events_pass_as_they_come_and_who_leaves_is_noticed(
    make: Maker, tmp_path: Path
) -> None:
    """The provider stalls mid-stream, so an event that arrives was held back by nobody."""
    needs(make)
    async with MockProvider(faults=[Fault.STALL_MID_STREAM]) as mock:
        with (
            gateway(pool_at(mock.base_url), tmp_path / "l.db") as served,
            proxied(make, tmp_path, served) as proxy,
        ):
            async with proxy.post(ask(stream=True)) as response:
                assert response.status == 200
                assert await first_word(response) == "a"
                assert mock.books[0].finished_at is None
                assert response.connection is not None
                assert response.connection.transport is not None
                response.connection.transport.abort()
            async with asyncio.timeout(30):
                while mock.books[0].finished_at is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("make", PROXIES)
async def test_whole_answers_and_errors_pass(make: Maker, tmp_path: Path) -> None:
    needs(make)
    async with MockProvider() as mock:
        with (
            gateway(pool_at(mock.base_url), tmp_path / "l.db", proxies=[HERE]) as served,
            proxied(make, tmp_path, served) as proxy,
        ):
            async with proxy.post(ask()) as response:
                assert response.status == 200
                assert (await response.json())["choices"][0]["message"]["content"]
            async with proxy.post(ask(model="none")) as response:
                assert response.status == 404
                assert (await response.json())["error"]["code"] == "model_not_found"
            async with proxy.post(ask(user="x" * MAX_BODY_BYTES)) as response:
                assert response.status == 413
                assert response.content_type == "application/json"
                assert (await response.json())["error"]["code"] == "body_too_large"
            async with (
                aiohttp.ClientSession() as session,
                session.post(
                    f"{proxy.root}/login",
                    data={"key": ADMIN},
                    ssl=False,
                    headers={"x-forwarded-for": "192.0.2.1"},
                    allow_redirects=False,
                ) as response,
            ):
                assert response.status == 303
                assert "Secure" in response.headers["set-cookie"]


@pytest.mark.parametrize("make", PROXIES)
async def test_a_gateway_that_is_away(make: Maker, tmp_path: Path) -> None:
    needs(make)
    with gateway(pool_at("http://127.0.0.1:9/v1"), tmp_path / "l.db") as served:
        pass
    with proxied(make, tmp_path, served) as proxy:
        async with proxy.post(ask()) as response:
            assert response.status == 502
            assert response.headers["retry-after"] == "5"
            assert (await response.json())["error"]["code"] == "gateway_away"


async def test_nginx_reloads_without_cutting_a_stream(tmp_path: Path) -> None:
    needs(nginx)
    words = " ".join("abcdefghij")
    async with MockProvider(answer=lambda call: words, token_s=0.1) as mock:
        with (
            gateway(pool_at(mock.base_url), tmp_path / "l.db") as served,
            proxied(nginx, tmp_path, served) as proxy,
        ):
            async with proxy.post(ask(stream=True)) as response:
                first = await first_word(response)
                proxy.process.send_signal(signal.SIGHUP)
                rest = (await response.read()).splitlines()
            assert first + "".join(text for line in rest for text in deltas(line)) == words
            assert b"data: [DONE]" in rest
