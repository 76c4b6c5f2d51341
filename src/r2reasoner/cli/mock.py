"""`r2reasoner mock`: a fake provider on a real socket, to try routers, gateways and clients on."""

import asyncio
import json
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from r2reasoner.errors import ConfigError

if TYPE_CHECKING:
    from r2reasoner.mock import MockProvider


def mock(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8081,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each answer.")] = 0.0,
    token_latency: Annotated[
        float, typer.Option(min=0, help="Seconds before each word of a stream.")
    ] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A kind of fault, repeatable; `all` for every kind."),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests that get one of the faults.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the draw of faults.")] = 0,
    answer: Annotated[
        str | None, typer.Option(help="What to answer; default: the last user message.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model it has, repeatable; default: any name.")
    ] = None,
    cache: Annotated[
        bool,
        typer.Option(help="Bill beginnings of 1,024 words and more that come again as cached."),
    ] = False,
    json_out: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Serve OpenAI's chat API with scripted faults, and keep books of what was billed.

    Its books are at /books. A request's header `x-mock-fault` asks for one fault by name.
    """
    from r2reasoner.mock import Fault, MockProvider, echo, random_faults

    names = fault or []
    kinds = tuple(Fault) if "all" in names else tuple(Fault.named(name) for name in names)
    provider = MockProvider(
        answer=echo if answer is None else lambda _: answer,
        faults=random_faults(rate, seed, kinds) if kinds else None,
        latency_s=latency,
        token_s=token_latency,
        models=model or (),
        cache=cache,
        host=host,
        port=port,
    )
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(provider, json_out=json_out))


async def _serve(provider: "MockProvider", *, json_out: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await provider.start()
    except OSError as error:
        raise ConfigError(f"cannot listen: {error.strerror or error}; try another --port") from None
    books = provider.base_url.removesuffix("/v1") + "/books"
    if json_out:
        typer.echo(json.dumps({"base_url": provider.base_url, "books": books}))
    else:
        typer.echo(f"base_url {provider.base_url}\nbooks    {books}\nstop with Ctrl-C")
    await stop.wait()
    await provider.close()
