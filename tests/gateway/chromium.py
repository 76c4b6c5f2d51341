"""A headless Chromium, spoken to over its own protocol: no driver package is needed."""

import asyncio
import base64
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_S = 60.0


def find_chromium() -> str | None:
    """Where a Chromium is: what R2REASONER_CHROMIUM names, else what is on the path."""
    named = os.environ.get("R2REASONER_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page. `troubles` are script errors and what the page's policy refused."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.troubles: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                future = self._waiting.pop(said["id"], None)
                if future is not None and not future.done():
                    future.set_result(said)
                continue
            params = said.get("params", {})
            if said["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif said["method"] == "Page.javascriptDialogOpening":
                self._accept = asyncio.create_task(
                    self.send("Page.handleJavaScriptDialog", accept=True)
                )
            elif said["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.troubles.append(details.get("exception", {}).get("description", str(details)))
            elif said["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                entry = params["entry"]
                self.troubles.append(f"{entry['text']} {entry.get('url', '')}")

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._count] = future
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        answer = await asyncio.wait_for(future, PATIENCE_S)
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    async def start(self) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")

    async def shape(self, width: int, *, dark: bool, height: int = 900) -> None:
        """Give the page a width in pixels, and a light or a dark scheme."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def go(self, url: str) -> None:
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE_S)

    async def run(self, script: str) -> Any:
        """Return what an expression is on the page."""
        answer = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def leave_by(self, script: str) -> None:
        """Run what leads to another page, and wait for that."""
        self._loaded.clear()
        await self.run(script)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE_S)

    async def until(self, script: str) -> None:
        """Wait until an expression is true on the page."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self.run(script):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, **text)

    async def picture(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        height = await self.run("document.documentElement.scrollHeight")
        width = await self.run("document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def chromium(binary: str, profile: Path) -> AsyncIterator[Tab]:
    """Start a browser with a profile of its own, yield its page, and end it."""
    process = await asyncio.create_subprocess_exec(
        binary,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            address = pages[0]["webSocketDebuggerUrl"]
            async with http.ws_connect(address, max_msg_size=2**28) as socket:
                tab = Tab(socket)
                await tab.start()
                try:
                    yield tab
                finally:
                    tab._reader.cancel()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()


async def _port(file: Path) -> int:
    """Return the port that a browser wrote when it listened."""

    def written() -> str:
        with suppress(FileNotFoundError):
            return file.read_text()
        return ""

    async with asyncio.timeout(PATIENCE_S):
        while not (text := await asyncio.to_thread(written)).count("\n"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return int(text.split()[0])
