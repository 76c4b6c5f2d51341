"""`r2reasoner serve`: the OpenAI-compatible gateway."""

import json
import os
from enum import StrEnum
from typing import Annotated, Final

import typer

from r2reasoner.cli.ask import DbOption
from r2reasoner.cli.pool import JsonOption
from r2reasoner.errors import ConfigError

INSTALL: Final = "the gateway needs more packages: pip install 'r2reasoner[gateway]'"


class LogLevel(StrEnum):
    """How much the log says."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    pool: Annotated[
        list[str] | None,
        typer.Option(
            "--pool",
            "-p",
            help="A shipped pool (nano, paper) or a pool file; else $R2REASONER_POOL, else nano."
            " Given again: a further pool, for requests that name it in r2.pool.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    db: DbOption = None,
    keep_days: Annotated[
        int | None,
        typer.Option(min=1, help="Remove traces and calls after so many days; else none is."),
    ] = None,
    cache: Annotated[
        int, typer.Option(min=0, help="Answers kept for requests that say r2.cache; 0: none.")
    ] = 0,
    trivial: Annotated[
        bool, typer.Option(help="Answer greetings, thanks and the like at once, without a plan.")
    ] = True,
    stay: Annotated[
        float,
        typer.Option(min=0, help="Seconds that a provider's prompt cache is counted on; 0: not."),
    ] = 300.0,
    shadow: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of direct requests also routed, to compare cost."),
    ] = 0.0,
    canary: Annotated[
        float, typer.Option(min=0, max=1, help="Share of direct requests that the router answers.")
    ] = 0.0,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds given to requests in flight at the end.")
    ] = 30.0,
    forwarded_allow_ips: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS,…",
            help="Proxies in front of it, whose X-Forwarded-For and -Proto are believed.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A site whose pages may ask from a browser, as https://chat.example.org.",
        ),
    ] = None,
    log: Annotated[bool, typer.Option(help="One JSON line per request on stderr.")] = True,
    log_level: Annotated[LogLevel, typer.Option(help="From which level on lines are written.")] = (
        LogLevel.INFO
    ),
    as_json: JsonOption = False,
) -> None:
    """Serve the router in OpenAI's format, with keys, budgets and a dashboard, until SIGTERM.

    Point an OpenAI client to it and name the model `r2reasoner`, or `r2reasoner:0.7` to turn the
    dial. Beyond this machine, by its address or by a proxy, it serves only once there is a key:
    `r2reasoner key create`.
    """
    from r2reasoner.config import load_settings
    from r2reasoner.hosts import addresses, base_url, is_loopback, origin
    from r2reasoner.ledger import Ledger
    from r2reasoner.pool.load import find_pool, load_pool

    try:
        from r2reasoner.gateway.app import build
        from r2reasoner.gateway.gateway import ADMIN_ENV, Gateway, Options
        from r2reasoner.gateway.keys import Keys
        from r2reasoner.gateway.logs import log_to_stderr
        from r2reasoner.gateway.server import listen
    except ModuleNotFoundError as error:
        raise ConfigError(f"{INSTALL} ({error.name} is missing)") from None
    from r2reasoner.client.secret import Secret
    from r2reasoner.retention import keep
    from r2reasoner.telemetry import open_spans

    proxies = () if forwarded_allow_ips is None else addresses(forwarded_allow_ips)
    this_machine_alone = is_loopback(host) and not proxies
    loaded, *others = [
        (load_pool(each), load_settings(find_pool(each))) for each in pool or (None,)
    ]
    admin = None
    if os.environ.get(ADMIN_ENV, "").strip():
        admin = Secret.from_environment(ADMIN_ENV, needed_by="the dashboard")
    options = Options(
        open_access=this_machine_alone,
        allow_origins=tuple(map(origin, allow_origin or ())),
        cache_entries=cache,
        trivial=trivial,
        stay_s=stay,
        shadow=shadow,
        canary=canary,
    )
    with log_to_stderr(log_level, requests=log), Ledger.open(db) as ledger:
        keys = Keys(ledger)
        if not this_machine_alone and not keys.all():
            raise ConfigError(
                f"{'behind a proxy' if proxies else f'on {host}'} others than this machine can"
                " ask, and there is no key to let them in by; make one: r2reasoner key create"
                " NAME"
            )
        gateway = Gateway.open(
            *loaded,
            ledger,
            keys,
            admin_key=admin,
            options=options,
            spans=open_spans(loaded[0]),
            others=others,
        )
        with keep(ledger.database, days=keep_days):
            listen(
                build(gateway),
                host,
                port,
                drain_s=drain,
                ready=lambda host, port: _say(base_url(host, port), as_json=as_json),
                proxies=proxies,
            )


def _say(where: str, *, as_json: bool) -> None:
    dashboard = where.removesuffix("/v1") + "/"
    if as_json:
        typer.echo(json.dumps({"base_url": where, "dashboard": dashboard}))
    else:
        typer.echo(f"base_url  {where}\ndashboard {dashboard}\nstop with Ctrl-C")
