"""The log of a real `r2reasoner serve`: nothing of what is asked, answered or secret is in it."""

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest

from collector import collector
from pools import answers, plan_json, pool_file
from r2reasoner.gateway.keys import Keys
from r2reasoner.gateway.logs import JsonLines, failure, log_to_stderr, watch
from r2reasoner.mock import ChatCall, Fault, MockProvider

PROMPT, SYSTEM, WORKED = "canary-prompt-7f3a", "canary-system-91bc", "canary-answer-c04d"
UPSTREAM, ADMIN, COLLECTOR = "sk-canary-upstream-55e1", "canary-admin-2d8f", "canary-otel-8ae0"
DEBUG = ("--log-level", "debug")

FAULTY = """\
import asyncio, threading
from r2reasoner.gateway import direct

real = direct.answer

def fail(text):
    raise RuntimeError(text)

async def fail_later(text):
    fail(text)

class Dying:
    def __init__(self, text):
        self.text = text
    def __del__(self):
        fail(self.text)

def answer(gateway, asked, *rest):
    if "explode" in asked.text:
        loop = asyncio.get_running_loop()
        loop.create_task(fail_later(asked.text))
        loop.call_soon(fail, asked.text)
        threading.Thread(target=fail, args=(asked.text,)).start()
        Dying(asked.text)
        fail(asked.text)
    return real(gateway, asked, *rest)

direct.answer = answer
from r2reasoner.cli.app import main
main()
"""


def said(words: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": words}]
    return {"model": "large", "messages": turns} | more


def fault(call: ChatCall) -> Fault | None:
    if "break" in call.last_user:
        return Fault.ERROR_IN_200 if call.model == "large" else Fault.GARBAGE_JSON
    return None


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", FAULTY, "serve", "--port", "0", "--json", *DEBUG, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


async def test_nothing_of_what_passes_through_is_in_the_log(tmp_path: Path) -> None:
    db = tmp_path / "l.db"
    keys = Keys.open(db)
    _, secret = keys.create("alice")
    keys.close_sync()
    mock = MockProvider(
        answer=answers(plan_json(PROMPT, ("do #1", [1])), lambda call: WORKED),
        faults=fault,
        key=UPSTREAM,
        retry_after_s=0,
    )
    with collector() as to:
        to.answer = 500
        async with mock:
            file = pool_file(tmp_path, mock.base_url, key_env="CANARY_KEY")
            environment = {
                "CANARY_KEY": UPSTREAM,
                "R2REASONER_ADMIN_KEY": ADMIN,
                "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{COLLECTOR}",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
                "OTEL_BSP_SCHEDULE_DELAY": "50",
                **to.environment,
            }
            process = start("--pool", str(file), "--db", str(db), "--shadow", "1", **environment)
            assert process.stdout is not None
            told = json.loads(await asyncio.to_thread(process.stdout.readline))
            try:
                exploded = await pass_everything_through(told["base_url"], secret)
            finally:
                process.send_signal(signal.SIGTERM)
                out, log = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    secrets = (PROMPT, SYSTEM, WORKED, UPSTREAM, ADMIN, COLLECTOR, secret, secret[5:25])
    for word in secrets:
        for shape in (word, quote(word, safe=""), base64.b64encode(word.encode()).decode()[:-4]):
            assert shape not in log + out
    lines = [json.loads(line) for line in log.splitlines()]
    failures = [line for line in lines if line.get("error") == "builtins.RuntimeError"]
    places = sorted(line["where"][-1].partition(" ")[2] for line in failures)
    assert places == ["fail"] * 5
    assert [line["trace"] for line in failures if "trace" in line] == [exploded]
    statuses = [line["status"] for line in lines if "status" in line and "path" in line]
    assert sorted(set(statuses)) == [200, 400, 401, 404, 500, 502]
    assert [line["message"] for line in lines if line.get("logger") == "r2reasoner.telemetry"] == [
        "the collector takes no spans; until it does, they are dropped"
    ]


async def pass_everything_through(base_url: str, secret: str) -> str:
    """Ask in every way that may go right or wrong; return the trace of what is our own failure."""
    headers = {"authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession() as session:

        async def post(body: Any, key: str = secret, query: str = "") -> aiohttp.ClientResponse:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            how = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            async with session.post(
                f"{base_url}/chat/completions{query}", data=data, headers=how
            ) as got:
                await got.read()
                return got

        for model in ("r2reasoner", "large"):
            for stream in (False, True):
                assert (await post(said(PROMPT, model=model, stream=stream))).status == 200
                await post(said(f"break {PROMPT}", model=model, stream=stream))
        assert (await post(f'{{"model": "{PROMPT}'.encode())).status == 400
        assert (await post(said(PROMPT, model=PROMPT))).status == 404
        assert (await post(said(PROMPT, **{PROMPT: 1}))).status == 400
        assert (await post(said(PROMPT, r2={"max_cost": PROMPT}))).status == 400
        assert (await post(said(PROMPT), key=f"r2-{PROMPT}")).status == 401
        assert (await post(said(PROMPT), query=f"?api_key={secret}&q={PROMPT}")).status == 400
        exploded = await post(said(f"explode {PROMPT}"))
        assert exploded.status == 500
        async with session.get(f"{base_url}/models/{secret}", headers=headers) as got:
            assert got.status == 404
    place = urlsplit(base_url)
    with closing(socket.create_connection((place.hostname or "", place.port or 0))) as odd:
        odd.sendall(f"{PROMPT} \x00 {secret}\r\n\r\n".encode())
        assert b"400" in await asyncio.to_thread(odd.recv, 1000)
    return exploded.headers["x-r2-trace-id"]


def record(name: str, message: str, *args: object, error: BaseException | None = None) -> Any:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord(name, logging.ERROR, "/a/b/place.py", 7, message, args, info)
    return json.loads(JsonLines().format(made))


def test_lines_of_ours_and_of_others() -> None:
    assert record("r2reasoner.gateway.access", '{"a": 1}') == {"a": 1}
    ours = record("r2reasoner.telemetry", "%d spans", 3)
    assert (ours["message"], ours["level"], ours["place"]) == ("3 spans", "error", "place:7")
    assert record("sqlalchemy.engine", "[%s]", PROMPT)["message"] == "[%s]"
    assert "message" not in record("asyncio", f"made of {PROMPT}")


def test_of_exceptions_their_types_and_places_alone() -> None:
    def inner() -> None:
        raise ValueError(PROMPT)

    try:
        try:
            inner()
        except ValueError as error:
            raise RuntimeError(PROMPT) from error
    except RuntimeError as error:
        line = record("uvicorn.error", "Exception in ASGI application\n", error=error)
    assert line["error"] == "builtins.RuntimeError"
    (cause,) = line["causes"]
    assert cause["error"] == "builtins.ValueError"
    assert cause["where"][-1].endswith("inner")
    assert PROMPT not in json.dumps(line)


def test_a_chain_that_never_ends_is_cut() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert len(failure(one)["causes"]) == 4


def test_everything_is_as_before_when_the_server_has_ended() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), sys.excepthook, threading.excepthook)
    with log_to_stderr("debug", requests=False):
        assert isinstance(root.handlers[0].formatter, JsonLines)
        assert logging.getLogger("r2reasoner").isEnabledFor(logging.DEBUG)
        assert not logging.getLogger("r2reasoner.gateway.access").isEnabledFor(logging.INFO)
        assert not logging.getLogger("sqlalchemy.engine").isEnabledFor(logging.INFO)
    assert (root.level, list(root.handlers), sys.excepthook, threading.excepthook) == before


async def test_what_a_loop_throws_away(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    watch(loop)
    try:
        loop.call_exception_handler({"message": PROMPT, "exception": ValueError(PROMPT)})
        loop.call_exception_handler({"message": PROMPT})
    finally:
        loop.set_exception_handler(None)
    assert [r.message for r in caplog.records] == ["uncaught in the event loop"] * 2
