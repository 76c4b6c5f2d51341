"""The dashboard in a headless Chromium: no script error, nothing that its policy refused.

With R2REASONER_SHOTS=FOLDER each page's picture is written there.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import Tab, chromium, find_chromium
from traces_to_show import HOSTILE, hostile, pool, put, rich

from gateways import ADMIN, Served, gateway
from pools import answers, plan_json, pool_at
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider

BINARY = find_chromium()
SHOTS = os.environ.get("R2REASONER_SHOTS")
PAGES = ("/", "/traces", "/playground", "/pool", "/keys")
PLANNER = plan_json("34 * 5", "7 * 8", ("#1 + #2", [1, 2]))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BINARY is None, reason="no Chromium here (apt-get install chromium, or R2REASONER_CHROMIUM)"
    ),
]


@asynccontextmanager
async def browsing(served: Served, tmp_path: Path) -> AsyncIterator[Tab]:
    """Yield a page of a browser that is logged in; at its end nothing may have gone wrong."""
    assert BINARY is not None
    async with chromium(BINARY, tmp_path / "profile") as tab:
        await tab.shape(1280, dark=False)
        await tab.go(f"{served.root}/traces")  # leads to the login, and back
        assert await tab.run("document.activeElement.id") == "key"
        await tab.run(f"document.querySelector('#key').value = {ADMIN!r}")
        await tab.leave_by("document.querySelector('form').requestSubmit()")
        assert await tab.run("location.pathname") == "/traces"
        yield tab
        assert tab.troubles == []
        assert await tab.run("window.hit") is None


async def look_at(tab: Tab, name: str, url: str) -> None:
    """Look at a page as wide and narrow, light and dark; it may not be wider than the screen."""
    await tab.go(url)
    papers = set()
    for width in (1280, 390):
        for dark in (False, True):
            await tab.shape(width, dark=dark)
            assert await tab.run("document.documentElement.scrollWidth") <= width, (name, width)
            papers.add(await tab.run("getComputedStyle(document.body).backgroundColor"))
            shown = "getComputedStyle({}).display !== 'none'"
            drawn = await tab.run(
                "[...document.querySelectorAll('main svg.wide, main svg.narrow')]"
                f".filter((s) => {shown.format('s')}).map((s) => s.classList.contains('narrow'))"
            )
            assert set(drawn) <= {width < 720}
            if SHOTS:
                scheme = "dark" if dark else "light"
                await tab.picture(Path(SHOTS) / f"{name}-{width}-{scheme}.png")
    assert len(papers) == 2


async def test_every_page_in_every_shape(tmp_path: Path) -> None:
    trace, bad = rich(), hostile()
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        put(ledger, trace, bad)
    with gateway(
        replace(pool(HOSTILE, "small", "medium", "large")), tmp_path / "ledger.db"
    ) as served:
        served.keys.create(HOSTILE[:90])
        async with browsing(served, tmp_path) as tab:
            for path in PAGES:
                await look_at(tab, path.strip("/") or "overview", served.root + path)
            await look_at(tab, "trace", f"{served.root}/traces/{trace.id}")
            await look_at(tab, "hostile", f"{served.root}/traces/{bad.id}")


async def test_a_question_is_watched_and_its_trace_opened(tmp_path: Path) -> None:
    def worker(call: ChatCall) -> str:
        return HOSTILE

    async with MockProvider(answer=answers(PLANNER, worker), latency_s=0.05) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "ledger.db") as served:
            async with browsing(served, tmp_path) as tab:
                await tab.go(f"{served.root}/playground")
                await tab.run(
                    "const dial = document.querySelector('#trade_off'); dial.value = 0.75;"
                    "dial.dispatchEvent(new Event('input'))"
                )
                assert await tab.run("document.querySelector('output').textContent") == "0.75"
                await tab.run("document.querySelector('#query').value = 'what is 34 * 5 + 7 * 8'")
                await tab.run("document.querySelector('#ask').requestSubmit()")
                await tab.until("document.querySelectorAll('.node.runs').length > 0")
                await tab.until("document.querySelector('#now').textContent.startsWith('Done')")
                assert (
                    await tab.run("document.querySelector('#answer_text').textContent") == HOSTILE
                )
                done = "document.querySelectorAll('svg.wide .node.done').length"
                assert await tab.run(done) == 4  # three subtasks and the answer
                passed = "document.querySelectorAll('svg.wide .edge.passed').length"
                assert await tab.run(passed) == 3
                assert await tab.run("document.querySelectorAll('#log li').length") >= 8
                if SHOTS:
                    await tab.picture(Path(SHOTS) / "asked-1280-light.png")
                await tab.leave_by("document.querySelector('#bill a').click()")
                assert HOSTILE in await tab.run("document.querySelector('#answer pre').textContent")
            trace = await served.trace(served.ledger.traces(limit=1)[0].id)
    assert trace.trade_off == 0.75


async def test_a_refusal_is_shown_and_asking_again_works(tmp_path: Path) -> None:
    async with MockProvider(answer=answers(PLANNER)) as mock:
        with gateway(pool_at(mock.base_url), tmp_path / "ledger.db") as served:
            async with browsing(served, tmp_path) as tab:
                await tab.go(f"{served.root}/playground?q=what+is+34+*+5")
                await tab.run("document.querySelector('#max_cost').value = 'much'")
                await tab.run("document.querySelector('#ask').requestSubmit()")
                await tab.until("!document.querySelector('#trouble').hidden")
                assert "much" in await tab.run("document.querySelector('#trouble').textContent")
                tab.troubles.clear()  # the refusal's own status, which Chromium logs
                await tab.run("document.querySelector('#max_cost').value = ''")
                await tab.run("document.querySelector('#ask').requestSubmit()")
                await tab.until("document.querySelector('#now').textContent.startsWith('Done')")
                assert await tab.run("document.querySelector('#trouble').hidden")


async def test_by_keyboard_alone(tmp_path: Path) -> None:
    traces = [rich("first asked"), rich("asked later")]
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        put(ledger, *traces)
    with gateway(pool(), tmp_path / "ledger.db") as served:
        async with browsing(served, tmp_path) as tab:
            focused = "document.activeElement.textContent.trim()"
            await tab.press("j")
            assert await tab.run(focused) == "asked later"
            await tab.press("j")
            assert await tab.run(focused) == "first asked"
            await tab.press("k")
            assert await tab.run(focused) == "asked later"
            await tab.press("/")
            assert await tab.run("document.activeElement.id") == "q"
            await tab.press("j")  # a letter to be searched for, now
            assert await tab.run("document.activeElement.value") == "j"
            await tab.run("document.activeElement.blur()")
            await tab.press("g")
            await tab.press("b")
            await tab.until("location.pathname === '/keys' && document.readyState === 'complete'")


async def test_a_key_is_made_and_revoked(tmp_path: Path) -> None:
    with gateway(pool(), tmp_path / "ledger.db") as served:
        async with browsing(served, tmp_path) as tab:
            await tab.go(f"{served.root}/keys")
            await tab.run("document.querySelector('#name').value = 'web shop'")
            await tab.leave_by("document.querySelector('.make').requestSubmit()")
            secret = await tab.run("document.querySelector('#secret').textContent")
            assert (await served.get("/v1/models", key=secret))[0] == 200
            await tab.leave_by("document.querySelector('.danger').click()")  # confirmed
            assert await tab.run("document.querySelectorAll('.danger').length") == 0
        ((key, _),) = served.keys.all()
    assert key.revoked_at is not None
