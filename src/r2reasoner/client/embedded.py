"""Models run in process by CTranslate2, behind the same interface as HTTP endpoints.

One thread per model gathers what is in flight into a micro-batch, so that many callers cost
little more than one. Decoding is greedy; `rank` 1 asks for the next beam.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from statistics import fmean
from typing import Any, Final, NamedTuple

from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Completion
from r2reasoner.client.text import TextCodec, open_codec
from r2reasoner.errors import CallError, CallFault, ConfigError, DeadlineExceeded
from r2reasoner.pool.cards import Card
from r2reasoner.types import CallOutcome, Usage

MICRO_BATCH: Final = 128
SHORT_TOKENS: Final = 128
SMALL_BYTES: Final = 16 << 20
CHECKED_FILES: Final = ("model.bin", "vocabulary.json", "config.json")


class Generated(NamedTuple):
    """Generated tokens without the end token, and their log-probabilities if they were wanted."""

    tokens: list[str]
    logprobs: list[float] | None


class _Wish(NamedTuple):
    prompt: list[str]
    max_tokens: int
    rank: int
    logprobs: bool
    loop: asyncio.AbstractEventLoop
    reply: "asyncio.Future[Generated]"


class EmbeddedModel:
    """One converted model: its weights, its codec and the thread that runs it."""

    def __init__(self, folder: Path, sha256: str | None) -> None:
        missing = [name for name in CHECKED_FILES if not (folder / name).is_file()]
        if missing:
            raise ConfigError(f"{folder}: no converted model here (expected {missing[0]})")
        if sha256 is not None and checksum(folder) != sha256:
            raise ConfigError(
                f"{folder}: the files do not match the sha256 in the pool file;"
                " restore them, or put the new checksum there if the change is yours"
            )
        import ctranslate2

        self.codec: TextCodec = open_codec(folder)
        try:
            self._generator: Any = ctranslate2.Generator(
                str(folder), device="cpu", compute_type="float32", intra_threads=1
            )
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{folder}: CTranslate2 cannot load this model: {error}") from error
        self._small = (folder / "model.bin").stat().st_size <= SMALL_BYTES
        self._lock = threading.Lock()
        self._closed = False
        self._wishes: SimpleQueue[_Wish | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"r2-{folder.name}", daemon=True)
        self._thread.start()

    async def generate(
        self, prompt: list[str], max_tokens: int, rank: int, *, logprobs: bool = False
    ) -> Generated:
        """Return what the model writes after a prompt. Raises RuntimeError when closed."""
        loop = asyncio.get_running_loop()
        wish = _Wish(prompt, max_tokens, rank, logprobs, loop, loop.create_future())
        with self._lock:
            if self._closed:
                raise RuntimeError("the model was closed")
            self._wishes.put(wish)
        return await wish.reply

    def close(self) -> None:
        """Stop the thread; what is queued is still answered."""
        with self._lock:
            self._closed = True
            self._wishes.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (first := self._wishes.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < MICRO_BATCH and not self._wishes.empty():
                wish = self._wishes.get()
                if wish is None:
                    last = True
                    break
                batch.append(wish)
            for key in {_settings(w) for w in batch}:
                self._run([w for w in batch if _settings(w) == key], *key)
            if last:
                return

    def _run(self, wishes: list[_Wish], max_tokens: int, rank: int, logprobs: bool) -> None:
        def is_abandoned(step: Any) -> bool:
            done: bool = wishes[step.batch_id].reply.done()
            return done

        # Called for every token: too dear where the whole answer takes milliseconds.
        quick = self._small and max_tokens <= SHORT_TOKENS
        try:
            results = self._generator.generate_batch(
                [w.prompt for w in wishes],
                max_length=max_tokens,
                beam_size=rank + 1,
                num_hypotheses=rank + 1,
                end_token=self.codec.end_token,
                include_prompt_in_result=False,
                callback=None if quick or rank else is_abandoned,
            )
            written = [r.sequences[min(rank, len(r.sequences) - 1)] for r in results]
            scores = self._score(wishes, written) if logprobs else [None] * len(written)
            answers = [Generated(*pair) for pair in zip(written, scores, strict=True)]
        except Exception as error:  # whatever it is, nobody may wait for ever
            _deliver(wishes, None, error)
        else:
            _deliver(wishes, answers, None)

    def _score(self, wishes: list[_Wish], written: list[list[str]]) -> list[list[float] | None]:
        """Return the log-probabilities of written tokens, by one more pass over all of them."""
        prompts = [wish.prompt for wish in wishes]
        texts = [prompt + tokens for prompt, tokens in zip(prompts, written, strict=True)]
        results = self._generator.score_batch(texts, max_input_length=0)
        # the first token of a text has no score: it follows nothing
        return [
            list(result.log_probs[len(prompt) - 1 :])
            for result, prompt in zip(results, prompts, strict=True)
        ]


def _settings(wish: _Wish) -> tuple[int, int, bool]:
    """Return what wishes must have in common to be answered together."""
    return wish.max_tokens, wish.rank, wish.logprobs


def _deliver(
    wishes: Sequence[_Wish], answers: list[Generated] | None, error: Exception | None
) -> None:
    """Resolve the callers' futures, one hop per event loop."""

    def resolve(indices: list[int]) -> None:
        for i in indices:
            reply = wishes[i].reply
            if reply.done():
                continue
            if answers is None:
                reply.set_exception(error or RuntimeError("no answer"))
            else:
                reply.set_result(answers[i])

    for loop in {w.loop for w in wishes}:
        mine = [i for i, w in enumerate(wishes) if w.loop is loop]
        with suppress(RuntimeError):  # a closed loop has nobody left to tell
            loop.call_soon_threadsafe(resolve, mine)


def checksum(folder: Path) -> str:
    """Return the sha256 of a converted model's weights, vocabulary and settings."""
    digest = hashlib.sha256()
    for name in CHECKED_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


class EmbeddedClient:
    """The Client of endpoints of kind `embedded`."""

    def __init__(self) -> None:
        self._models: dict[Path, EmbeddedModel] = {}

    def model(self, card: Card) -> EmbeddedModel:
        """Return a card's loaded model. Raises ConfigError where it cannot be loaded."""
        if card.endpoint.path is None:
            raise ConfigError(f"endpoint {card.endpoint.name!r}: an embedded one needs a path")
        folder = card.endpoint.path / card.model
        if folder not in self._models:
            self._models[folder] = EmbeddedModel(folder, card.sha256)
        return self._models[folder]

    async def complete(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> Completion:
        """Return the whole answer. Raises UnknownWords, and what the Client protocol names."""
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineExceeded("the deadline of the query has passed")
        model = self.model(card)
        prompt = model.codec.prompt(request.messages)
        if len(prompt) + request.max_tokens > card.context:
            raise CallError(
                CallFault.REFUSED_INPUT,
                f"{len(prompt)} prompt tokens and {request.max_tokens} to write do not fit"
                f" a context of {card.context}",
                model=card.name,
            )
        call = await meter.open(
            card,
            Usage(len(prompt), request.max_tokens),
            role=request.role,
            subtask=request.subtask,
            attempt=1,
            note=request.note,
        )
        started = time.monotonic()
        try:
            async with asyncio.timeout(None if deadline is None else deadline - started):
                tokens, logprobs = await model.generate(
                    prompt, request.max_tokens, request.rank, logprobs=request.logprobs
                )
        except BaseException as error:
            meter.settle(
                call,
                CallOutcome.UNKNOWN,
                usage=None,
                latency_s=time.monotonic() - started,
                error=str(error) or type(error).__name__,
            )
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"{card.name}: no answer before the deadline") from None
            if isinstance(error, Exception):
                raise CallError(CallFault.SERVER, str(error), model=card.name) from error
            raise
        ended = len(tokens) < request.max_tokens
        usage = Usage(len(prompt), len(tokens) + ended)
        latency = time.monotonic() - started
        finish = "stop" if ended else "length"
        settled = meter.settle(
            call,
            CallOutcome.OK,
            usage=usage,
            latency_s=latency,
            ttft_s=latency,
            finish_reason=finish,
        )
        text = model.codec.text(tokens)
        if not text:
            raise CallError(CallFault.EMPTY, "the model wrote nothing", model=card.name)
        return Completion(
            text=text,
            usage=usage,
            cost=settled.cost,
            model=card.name,
            finish_reason=finish,
            latency_s=latency,
            ttft_s=latency,
            attempts=1,
            logprob=fmean(logprobs) if logprobs else None,
        )

    async def stream(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None = None
    ) -> AsyncIterator[str | Completion]:
        """Yield the text in one piece, then the Completion: micro-batches answer whole."""
        completion = await self.complete(card, request, meter, deadline)
        yield completion.text
        yield completion

    async def close(self) -> None:
        """Stop the models' threads and free their weights."""
        for model in self._models.values():
            model.close()
        self._models.clear()
