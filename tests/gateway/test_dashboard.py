"""The dashboard on a real socket: who gets in, what pages say, what they never let through."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from traces_to_show import HOSTILE, card, hostile, pool, put, rich

from gateways import ADMIN, Served, gateway
from pools import answers, plan_json, pool_at
from r2reasoner.gateway import dashboard
from r2reasoner.gateway.dashboard.session import COOKIE, TRIES
from r2reasoner.gateway.dashboard.trace_page import subtasks_of
from r2reasoner.gateway.dashboard.web import MOST_FORM
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.types import AnswerStatus, CallOutcome, Role, Trace

PAGES = ("/", "/traces", "/playground", "/pool", "/keys")
ACTIONS = ("/playground", "/keys", "/keys/revoke", "/logout")
PLANNER = plan_json("34 * 5", ("12 + #1", [1]))


class Seen(HTMLParser):
    """The elements of a page, its visible text, and the token of its forms."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def token(self) -> str:
        found = [i["value"] for i in self.named("input") if i.get("name") == "token"]
        assert found[0]
        return found[0]


class Browser:
    """A client that keeps its cookies, as a browser does."""

    def __init__(self, root: str, session: aiohttp.ClientSession) -> None:
        self.root = root
        self.session = session

    async def get(self, path: str, **more: Any) -> tuple[int, str, Any]:
        async with self.session.get(self.root + path, allow_redirects=False, **more) as answer:
            return answer.status, await answer.text(), answer.headers

    async def see(self, path: str) -> Seen:
        status, text, _ = await self.get(path)
        assert status == 200, text
        return Seen(text)

    async def post(self, path: str, **form: str) -> tuple[int, str, Any]:
        return await self.send(path, data=form)

    async def send(self, path: str, **more: Any) -> tuple[int, str, Any]:
        async with self.session.post(self.root + path, allow_redirects=False, **more) as answer:
            return answer.status, await answer.text(), answer.headers

    async def log_in(self) -> str:
        """Log in and return the token of the session's forms."""
        status, _, headers = await self.post("/login", key=ADMIN)
        assert (status, headers["location"]) == (303, "/")
        return (await self.see("/keys")).token()


@asynccontextmanager
async def browsing(served: Served) -> AsyncIterator[Browser]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield Browser(served.root, session)


@pytest.fixture
def traces() -> list[Trace]:
    return [rich(), replace(rich("Plan a week of meals"), pool="another")]


@pytest.fixture
def served(tmp_path: Path, traces: list[Trace]) -> Iterator[Served]:
    db = tmp_path / "ledger.db"
    with Ledger.open(db) as ledger:
        put(ledger, *traces)
    with gateway(pool(), db) as found:
        yield found


class TestGettingIn:
    async def test_every_page_sends_strangers_to_the_login(
        self, served: Served, traces: list[Trace]
    ) -> None:
        forged = {"cookie": f"{COOKIE}=0.99999999999.0"}
        some = (*PAGES, f"/traces/{traces[0].id}", f"/traces/{traces[0].id}/json", "/traces?q=a+b")
        async with browsing(served) as browser:
            for path in some:
                for headers in ({}, forged, {"authorization": f"Bearer {ADMIN}"}):
                    status, text, answer = await browser.get(path, headers=headers)
                    assert (status, text) == (303, "")
                    assert answer["location"].startswith("/login?next=/")
            for path in ACTIONS:
                for headers in ({}, forged):
                    status, text, _ = await browser.send(path, data={"id": "x"}, headers=headers)
                    assert status == 401, text

    async def test_no_other_route_is_open(self, served: Served) -> None:
        """A route added without a guard fails here."""
        guarded = {*PAGES, *ACTIONS, "/traces/{identifier:str}", "/traces/{identifier:str}/json"}
        found = {getattr(route, "path", "") for route in dashboard.routes(served.gateway)}
        assert found == guarded | {"/login", "/static"}

    async def test_the_admin_key_and_back_to_where_one_wanted(self, served: Served) -> None:
        async with browsing(served) as browser:
            page = await browser.see("/login?next=/traces%3Fq%3Da%2Bb")
            wanted = next(i["value"] for i in page.named("input") if i.get("name") == "next")
            assert wanted == "/traces?q=a+b"
            status, _, headers = await browser.post("/login", key=ADMIN, next=wanted)
            assert (status, headers["location"]) == (303, "/traces?q=a+b")
            cookie = headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert (await browser.get("/"))[0] == 200

    @pytest.mark.parametrize(
        "where",
        ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "x", ""],
    )
    async def test_a_link_cannot_lead_elsewhere_after_the_login(
        self, served: Served, where: str
    ) -> None:
        async with browsing(served) as browser:
            _, _, headers = await browser.post("/login", key=ADMIN, next=where)
            assert headers["location"] == "/"

    async def test_wrong_keys_are_refused_and_after_some_all_are(self, served: Served) -> None:
        async with browsing(served) as browser:
            for wrong in ("", "x", ADMIN + "x", ADMIN[:-1], "\u00e9\u0000", "' OR 1=1"):
                status, text, headers = await browser.post("/login", key=wrong)
                assert (status, "set-cookie" in headers) == (401, False)
                assert "not the admin key" in text
            for _ in range(TRIES):
                status, _, _ = await browser.post("/login", key="x")
            assert status == 429
            assert (await browser.post("/login", key=ADMIN))[0] == 429

    async def test_without_an_admin_key_nobody_gets_in(self, tmp_path: Path) -> None:
        with gateway(pool(), tmp_path / "l.db", admin=False) as served:
            async with browsing(served) as browser:
                assert "R2REASONER_ADMIN_KEY" in (await browser.see("/login")).text
                assert (await browser.post("/login", key=""))[0] == 401
                assert (await browser.get("/"))[0] == 303

    async def test_logging_out_ends_the_session_for_whoever_has_its_cookie(
        self, served: Served
    ) -> None:
        async with browsing(served) as browser:
            token = await browser.log_in()
            (cookie,) = list(browser.session.cookie_jar)
            status, _, headers = await browser.post("/logout", token=token)
            assert (status, headers["location"]) == (303, "/login")
            kept = {"cookie": f"{COOKIE}={cookie.value}"}
            assert (await browser.get("/", headers=kept))[0] == 303


class TestForms:
    async def test_a_change_needs_the_token_of_the_session(self, served: Served) -> None:
        async with browsing(served) as browser, browsing(served) as other:
            token, strange = await browser.log_in(), await other.log_in()
            for path in ACTIONS:
                for wrong in ({}, {"token": ""}, {"token": strange}, {"token": token[:-1]}):
                    status, text, _ = await browser.post(path, name="sneaked", **wrong)
                    assert status == 403, (path, text)
            assert served.keys.all() == []
            assert (await browser.get("/"))[0] == 200  # not even logged out

    async def test_what_a_browser_says_comes_from_elsewhere_is_refused(
        self, served: Served
    ) -> None:
        async with browsing(served) as browser:
            token = await browser.log_in()
            for site in ("cross-site", "same-site"):
                headers = {"sec-fetch-site": site}
                form = {"token": token, "name": "sneaked"}
                status, _, _ = await browser.send("/keys", data=form, headers=headers)
                assert status == 403
        assert served.keys.all() == []

    async def test_what_is_no_form_is_refused(self, served: Served) -> None:
        async with browsing(served) as browser:
            token = await browser.log_in()
            headers = {"x-form-token": token}
            form = {**headers, "content-type": "application/x-www-form-urlencoded"}
            many = "&".join(f"f{n}=1" for n in range(200))
            for status, how in (
                (415, {"json": {"name": "x"}, "headers": headers}),
                (413, {"data": BytesIO(b"name=" + b"x" * MOST_FORM), "headers": form}),
                (400, {"data": b"name=%ff", "headers": form}),
                (400, {"data": b"name=\xff", "headers": form}),
                (400, {"data": many.encode(), "headers": form}),
            ):
                found, text, _ = await browser.send("/keys", **how)
                assert (found, list(json.loads(text))) == (status, ["error"])


class TestPages:
    async def test_a_page_can_load_nothing_but_what_is_ours(
        self, served: Served, traces: list[Trace]
    ) -> None:
        async with browsing(served) as browser:
            await browser.log_in()
            paths = (*PAGES, f"/traces/{traces[0].id}", "/login", "/traces/none")
            for path in paths:
                _, text, headers = await browser.get(path)
                policy = headers["content-security-policy"]
                assert "default-src 'self'" in policy
                assert "unsafe" not in policy
                assert headers["cache-control"] == "no-store"
                assert headers["x-content-type-options"] == "nosniff"
                inert(Seen(text))
                assert ADMIN not in text

    async def test_files_are_there_under_an_address_that_names_their_content(
        self, served: Served
    ) -> None:
        async with browsing(served) as browser:
            page = await browser.see("/login")
            links = [e["href"] for e in page.named("link")] + [
                e["src"] for e in page.named("script")
            ]
            assert len(links) == 3
            for link in links:
                status, text, headers = await browser.get(str(link))
                assert (status, bool(text)) == (200, True)
                assert "immutable" in headers["cache-control"]
                assert headers["x-content-type-options"] == "nosniff"
            for path in ("/static/../web.py", "/static/%2e%2e/web.py", "/static/", "/static/none"):
                status, text, _ = await browser.get(path)
                assert status in (404, 405), text

    async def test_the_overview_says_what_the_ledger_does(
        self, served: Served, traces: list[Trace]
    ) -> None:
        async with browsing(served) as browser:
            await browser.log_in()
            page = await browser.see("/")
        total = served.ledger.totals()
        assert f"{total.calls} calls" in page.text
        assert "2 queries" in page.text
        assert "44.8\u00a0m$" in page.text  # twice 22.4 m$
        assert "none scored" in page.text
        assert {f"/traces/{t.id}" for t in traces} <= {a.get("href") for a in page.named("a")}

    async def test_scores_beside_the_ledger_are_shown(
        self, served: Served, traces: list[Trace], tmp_path: Path
    ) -> None:
        names = {"benchmark": "towns", "split": "test", "strategy": "r2", "scored": True}
        rows = [
            {**names, "trace": trace.id, "right": right}
            for trace, right in zip(traces, (True, False), strict=True)
        ]
        (tmp_path / "towns.json.rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        async with browsing(served) as browser:
            await browser.log_in()
            assert "1 of 2 judged answers" in (await browser.see("/")).text
            assert "r2 on towns, test" in (await browser.see("/")).text
            for trace, word in zip(traces, ("right", "wrong"), strict=True):
                page = await browser.see(f"/traces/{trace.id}")
                scores = [s for s in page.named("span") if "score" in (s.get("class") or "")]
                assert [s["class"] for s in scores] == [f"score {word}"]

    async def test_an_empty_ledger_has_pages_too(self, tmp_path: Path) -> None:
        with gateway(pool(), tmp_path / "l.db") as served:
            async with browsing(served) as browser:
                await browser.log_in()
                for path in PAGES:
                    await browser.see(path)

    async def test_search_and_filters(self, served: Served, traces: list[Trace]) -> None:
        async with browsing(served) as browser:
            await browser.log_in()

            async def found(query: str) -> set[str]:
                page = await browser.see(f"/traces?{query}")
                links = [str(a.get("href")) for a in page.named("a")]
                return {link for link in links if link.startswith("/traces/")}

            both = {f"/traces/{trace.id}" for trace in traces}
            assert await found("") == both
            assert await found("q=meals") == {f"/traces/{traces[1].id}"}
            assert await found("model=large&status=complete&least=0.02&most=%240.03") == both
            assert await found("status=failed") == await found("most=0.02") == set()
            for wrong in (
                "status=x",
                "least=x",
                "most=nan",
                "least=-1",
                "page=0",
                "page=x",
                "page=²",
            ):
                status, text, _ = await browser.get(f"/traces?{wrong}")
                assert (status, "alert" in text) == (400, True)

    async def test_pages_of_traces(self, tmp_path: Path) -> None:
        db = tmp_path / "l.db"
        with Ledger.open(db) as ledger:
            bare = replace(rich("many"), calls=())
            put(ledger, *(replace(bare, id=f"{bare.id[:20]}{n:04x}") for n in range(55)))
        with gateway(pool(), db) as served:
            async with browsing(served) as browser:
                await browser.log_in()
                first = await browser.see("/traces?q=many")
                (older,) = [a["href"] for a in first.named("a") if a.get("rel") == "next"]
                assert len(listed(first)) == 50
                second = await browser.see(str(older))
                (newer,) = [a["href"] for a in second.named("a") if a.get("rel") == "prev"]
                assert len(listed(second)) == 5
                assert not listed(first) & listed(second)
                assert listed(await browser.see(str(newer))) == listed(first)


def listed(page: Seen) -> set[str]:
    links = [str(a.get("href")) for a in page.named("a")]
    return {link for link in links if link.startswith("/traces/")}


class TestATrace:
    async def test_says_all_that_happened(self, served: Served, traces: list[Trace]) -> None:
        trace = traces[0]
        async with browsing(served) as browser:
            await browser.log_in()
            page = await browser.see(f"/traces/{trace.id}")
            status, text, headers = await browser.get(f"/traces/{trace.id}/json")
        assert trace.answer.text in page.text
        for number, (subtask, choice, step) in enumerate(
            zip(trace.plan.subtasks, trace.allocation.choices, trace.steps, strict=True), 1
        ):
            assert subtask.text in page.text
            assert step.prompt in page.text
            assert str(step.answer) in page.text
            if choice is not None:
                assert choice.reason in page.text
            assert f"subtask-{number}" in {e.get("id") for _, e in page.elements}
        assert "Fell back from small" in page.text
        assert "503: overloaded, try again" in page.text
        assert all(word in page.text for word in ("planning", "allocating", "final subtasks"))
        assert len([s for s in page.named("svg") if "plan" in (s.get("class") or "")]) == 2
        assert status == 200
        assert json.loads(text)["id"] == trace.id
        assert headers["content-type"] == "application/json"

    async def test_neighbours_at_the_same_tokens(self, served: Served, traces: list[Trace]) -> None:
        views = {view.number: view for view in subtasks_of(traces[0], pool())}
        third = views[3]  # fell back from small to medium
        assert [(n.model, n.place) for n in third.neighbours] == [
            ("small", "weaker"),
            ("medium", "answered"),
            ("large", "stronger"),
        ]
        usage = third.calls[-1].usage
        for neighbour in third.neighbours:
            price = card(neighbour.model).price
            assert price is not None
            assert neighbour.cost == price.cost(usage)
        assert [n.times for n in third.neighbours] == [0.1, 1.0, 10.0]
        assert views[6].neighbours == ()  # a join
        assert all(v.neighbours == () for v in subtasks_of(traces[1], pool()))  # another pool

    async def test_of_another_pool_says_so(self, served: Served, traces: list[Trace]) -> None:
        async with browsing(served) as browser:
            await browser.log_in()
            page = await browser.see(f"/traces/{traces[1].id}")
        assert "pool another, which is not the one served here" in page.text

    async def test_one_that_is_not_there(self, served: Served) -> None:
        async with browsing(served) as browser:
            await browser.log_in()
            for path in ("/traces/none", "/traces/none/json", "/traces/%3Cscript%3E"):
                status, text, _ = await browser.get(path)
                assert (status, "no trace" in Seen(text).text) == (404, True)

    @pytest.mark.parametrize("status", list(AnswerStatus))
    async def test_any_end_and_nothing_done_can_be_shown(
        self, tmp_path: Path, status: AnswerStatus
    ) -> None:
        bare = replace(rich(), steps=(), calls=(), wall_s=0.0)
        bare = replace(bare, answer=replace(bare.answer, text="", status=status))
        with Ledger.open(tmp_path / "l.db") as ledger:
            put(ledger, bare)
        with gateway(pool(), tmp_path / "l.db") as served:
            async with browsing(served) as browser:
                await browser.log_in()
                page = await browser.see(f"/traces/{bare.id}")
        assert "Not run." in page.text
        assert status.value.replace("_", " ") in page.text


class TestHostileTexts:
    @pytest.fixture
    def hostile_served(self, tmp_path: Path) -> Iterator[tuple[Served, str]]:
        db, trace = tmp_path / "ledger.db", hostile()
        with Ledger.open(db) as ledger:
            put(ledger, trace)
        names = {"benchmark": HOSTILE, "split": HOSTILE, "strategy": HOSTILE}
        row = {**names, "scored": True, "right": True, "trace": trace.id}
        (tmp_path / "x.rows.jsonl").write_text(json.dumps(row) + "\n")
        with gateway(replace(pool(HOSTILE, "large", planner=HOSTILE + "2"), name=HOSTILE), db) as g:
            g.keys.create(HOSTILE[:90])
            yield g, trace.id

    async def test_stay_texts_on_every_page(self, hostile_served: tuple[Served, str]) -> None:
        served, identifier = hostile_served
        async with browsing(served) as browser:
            token = await browser.log_in()
            pages = [await browser.get(path) for path in (*PAGES, f"/traces/{identifier}")]
            pages += [await browser.get("/traces", params={"q": HOSTILE, "model": HOSTILE})]
            pages += [await browser.get("/traces", params={"least": HOSTILE})]
            pages += [await browser.get("/playground", params={"q": HOSTILE})]
            pages += [await browser.get("/login", params={"next": "/" + HOSTILE})]
            pages += [await browser.get("/traces/" + "<img src=x onerror=window.hit=1>")]
            fields = dict.fromkeys(("name", "per_day", "models", "expires"), HOSTILE)
            pages += [await browser.post("/keys", token=token, **fields)]
        for status, text, _ in pages:
            assert status < 500
            inert(Seen(text))

    async def test_are_all_there_to_read(self, hostile_served: tuple[Served, str]) -> None:
        served, identifier = hostile_served
        async with browsing(served) as browser:
            await browser.log_in()
            page = await browser.see(f"/traces/{identifier}")
        readable = " ".join(HOSTILE.split())
        assert page.text.count(readable) > 30
        assert "{{ 7*7 }}" in page.text


def inert(page: Seen) -> None:
    """Nothing runs on a page but scripts of this package, nothing styles it but its sheet."""
    for tag, attributes in page.elements:
        assert tag not in {"style", "iframe", "object", "embed", "base"}
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        for name in ("src", "href", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("/", "#")), (tag, target)
            assert target is None or not target.startswith("//")
    assert all("src" in script for script in page.named("script"))
    assert len(page.named("script")) <= 2
    assert all(i["src"].startswith("/static/icon") for i in page.named("img") if i["src"])


class TestKeys:
    async def test_made_shown_once_used_and_revoked(self, served: Served) -> None:
        async with browsing(served) as browser:
            token = await browser.log_in()
            form = {"per_day": "$0.5", "per_minute": "60", "models": "r2reasoner, small"}
            status, text, _ = await browser.post(
                "/keys", token=token, name="web shop", expires="30", **form
            )
            assert status == 200
            secret = text.split('<code id="secret">')[1].split("</code>")[0]
            ((key, _),) = served.keys.all()
            assert (key.name, key.per_day, key.per_month) == ("web shop", 5 * 10**11, None)
            assert (key.per_minute, key.models) == (60, ("r2reasoner", "small"))
            assert await self.works(served, secret)
            page = await browser.see("/keys")
            assert secret not in page.text
            assert "$0.5" in page.text
            status, _, headers = await browser.post("/keys/revoke", token=token, id=key.id)
            assert (status, headers["location"]) == (303, "/keys")
            assert "revoked" in (await browser.see("/keys")).text
        assert served.keys.all()[0][0].revoked_at is not None

    @staticmethod
    async def works(served: Served, secret: str) -> bool:
        return (await served.get("/v1/models", key=secret))[0] == 200

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": ""},
            {"name": "x" * 101},
            {"name": "a\nb"},
            {"per_day": "x"},
            {"per_day": "-1"},
            {"per_day": "0"},
            {"per_month": "NaN"},
            {"per_month": "1e99"},
            {"per_minute": "1.5"},
            {"per_minute": "0"},
            {"models": "smalll"},
            {"expires": "0"},
            {"expires": "99999999"},
        ],
    )
    async def test_what_cannot_be_is_said_and_the_form_kept(
        self, served: Served, wrong: dict[str, str]
    ) -> None:
        async with browsing(served) as browser:
            token = await browser.log_in()
            form = {"name": "fine", "per_day": "1"} | wrong
            status, text, _ = await browser.post("/keys", token=token, **form)
            page = Seen(text)
        assert (status, served.keys.all()) == (400, [])
        assert [p for p in page.named("p") if p.get("role") == "alert"]
        kept = {i["name"]: i.get("value") for i in page.named("input") if i.get("id")}
        assert all(kept[name] == value for name, value in form.items())

    async def test_revoking_one_that_is_not_there(self, served: Served) -> None:
        async with browsing(served) as browser:
            token = await browser.log_in()
            status, text, _ = await browser.post("/keys/revoke", token=token, id="none")
        assert (status, "no key" in text) == (400, True)


class TestThePool:
    async def test_health_endpoints_and_failures(self, served: Served) -> None:
        async with browsing(served) as browser:
            await browser.log_in()
            page = await browser.see("/pool")
        assert "http://127.0.0.1:9/v1" in page.text
        assert page.text.count("503: overloaded, try again") == 2
        health = [s["class"] for s in page.named("span") if "health" in (s.get("class") or "")]
        assert health[:4] == ["health troubled", "health well", "health well", "health well"]

    async def test_no_secret_of_an_endpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SHOP_KEY", "canary-4711")
        secretive = replace(
            card("small").endpoint,
            base_url="http://user:canary-1@127.0.0.1:9/v1?key=canary-2#canary-3",
            key_env="SHOP_KEY",
        )
        workers = tuple(replace(w, endpoint=secretive) for w in pool().workers)
        plain = replace(pool(), workers=workers, policies={}, decomposer="large")
        with gateway(plain, tmp_path / "l.db") as served:
            async with browsing(served) as browser:
                await browser.log_in()
                pages = [(await browser.get(path))[1] for path in PAGES]
        assert not any("canary" in page for page in pages)
        assert "SHOP_KEY, set" in pages[3]


class TestThePlayground:
    @pytest.fixture
    async def mock(self) -> AsyncIterator[MockProvider]:
        async with MockProvider(answer=answers(PLANNER)) as provider:
            yield provider

    async def test_events_as_they_happen_then_the_bill(
        self, mock: MockProvider, tmp_path: Path
    ) -> None:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            async with browsing(served) as browser:
                token = await browser.log_in()
                status, text, _ = await browser.post(
                    "/playground", token=token, query="what is 12 + 34 * 5", trade_off="0.5"
                )
            events = [json.loads(line) for line in text.splitlines()]
            trace = await served.trace(events[-1]["id"])
        assert status == 200
        kinds = [event["type"] for event in events]
        assert kinds[:3] == ["begun", "planned", "allocated"]
        assert kinds[-2:] == ["answered", "ended"]
        assert kinds.count("subtask_started") == kinds.count("subtask_finished") == 2
        assert "subtask-2" in events[1]["graph"]
        assert "medium" in events[2]["graph"]
        assert events[-1]["answer"] == trace.answer.text == "<12 + #1>"
        assert trace.trade_off == 0.5
        assert sum(call.cost or 0 for call in trace.calls) == sum(
            entry.cost or 0 for entry in served.ledger.entries(query_id=trace.id)
        )

    async def test_without_a_plan(self, mock: MockProvider, tmp_path: Path) -> None:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            async with browsing(served) as browser:
                token = await browser.log_in()
                _, text, _ = await browser.post(
                    "/playground", token=token, query="what is 1 + 1", direct="on"
                )
            trace = await served.trace(json.loads(text.splitlines()[-1])["id"])
        assert trace.plan.is_direct
        assert Role.DECOMPOSER not in {call.role for call in trace.calls}

    @pytest.mark.parametrize(
        "wrong",
        [{"query": " "}, {"trade_off": "1.5"}, {"trade_off": "x"}, {"max_cost": "-1"}],
    )
    async def test_what_cannot_be_asked_is_said_before_anything_is_spent(
        self, mock: MockProvider, tmp_path: Path, wrong: dict[str, str]
    ) -> None:
        with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
            async with browsing(served) as browser:
                token = await browser.log_in()
                form = {"query": "what is 1 + 1"} | wrong
                status, text, _ = await browser.post("/playground", token=token, **form)
        assert (status, list(json.loads(text))) == (400, ["error"])
        assert mock.books == []

    async def test_the_operators_cap_holds(self, mock: MockProvider, tmp_path: Path) -> None:
        with gateway(
            pool_at(mock.base_url), tmp_path / "l.db", flags={"max_cost": "1e-9"}
        ) as served:
            async with browsing(served) as browser:
                token = await browser.log_in()
                _, text, _ = await browser.post(
                    "/playground", token=token, query="what is 1 + 1", max_cost="5"
                )
        assert json.loads(text.splitlines()[-1])["status"] == "failed"
        assert mock.books == []

    async def test_who_leaves_stops_the_query_and_what_was_used_is_booked(
        self, tmp_path: Path
    ) -> None:
        def slow(call: ChatCall) -> float:
            return 0.0 if call.role == "decomposer" else 600.0

        async with MockProvider(answer=answers(PLANNER), latency_s=slow) as mock:
            with gateway(pool_at(mock.base_url), tmp_path / "l.db") as served:
                async with browsing(served) as browser:
                    form = {"token": await browser.log_in(), "query": "what is 12 + 34 * 5"}
                    address = f"{served.root}/playground"
                    async with browser.session.post(address, data=form) as answer:
                        begun = json.loads(await answer.content.readline())
                        assert served.gateway.live.get(begun["id"]) is not None
                        while b"subtask_started" not in await answer.content.readline():
                            pass
                        await until(lambda: len(mock.books) == 2)
                    await until(lambda: served.gateway.live.get(begun["id"]) is None)
                await served.ledger.flush()
                planned, worked = served.ledger.entries(query_id=begun["id"])
        assert planned.outcome is CallOutcome.OK
        assert (worked.outcome, worked.cost) == (CallOutcome.UNKNOWN, worked.bound)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
