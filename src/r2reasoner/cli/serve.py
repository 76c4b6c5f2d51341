"""`r2reasoner serve`: the OpenAI-compatible gateway."""

import json
import os
from typing import Annotated, Final

import typer

from r2reasoner.cli.ask import DbOption
from r2reasoner.cli.pool import JsonOption, PoolOption
from r2reasoner.errors import ConfigError

INSTALL: Final = "the gateway needs more packages: pip install 'r2reasoner[gateway]'"


def serve(
    pool: PoolOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    db: DbOption = None,
    cache: Annotated[
        int, typer.Option(min=0, help="Answers kept for requests that say r2.cache; 0: none.")
    ] = 0,
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
    log: Annotated[bool, typer.Option(help="One JSON line per request on stderr.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Serve the router in OpenAI's format, with keys, budgets and a dashboard, until SIGTERM.

    Point an OpenAI client to it and name the model `r2reasoner`, or `r2reasoner:0.7` to turn the
    dial. Beyond this machine it listens only once there is a key: `r2reasoner key create`.
    """
    from r2reasoner.config import load_settings
    from r2reasoner.hosts import base_url, is_loopback
    from r2reasoner.ledger import Ledger, default_path
    from r2reasoner.pool.load import find_pool, load_pool

    try:
        from r2reasoner.gateway.app import build
        from r2reasoner.gateway.gateway import ADMIN_ENV, Gateway, Options
        from r2reasoner.gateway.keys import Keys
        from r2reasoner.gateway.server import listen
    except ModuleNotFoundError as error:
        raise ConfigError(f"{INSTALL} ({error.name} is missing)") from None
    from r2reasoner.client.secret import Secret

    loaded = load_pool(pool)
    settings = load_settings(find_pool(pool))
    admin = None
    if os.environ.get(ADMIN_ENV, "").strip():
        admin = Secret.from_environment(ADMIN_ENV, needed_by="the dashboard")
    options = Options(
        open_access=is_loopback(host), cache_entries=cache, shadow=shadow, canary=canary
    )
    with Ledger.open(db) as ledger:
        keys = Keys.open(db or default_path())
        try:
            if not is_loopback(host) and not keys.all():
                raise ConfigError(
                    f"{host} is not this machine alone, and there is no key to let requests in by;"
                    " make one: r2reasoner key create NAME, or take --host 127.0.0.1"
                )
            gateway = Gateway.open(loaded, settings, ledger, keys, admin_key=admin, options=options)
            if log:
                _log_to_stderr()
            listen(
                build(gateway),
                host,
                port,
                drain_s=drain,
                ready=lambda host, port: _say(base_url(host, port), as_json=as_json),
            )
        finally:
            keys.close_sync()


def _say(where: str, *, as_json: bool) -> None:
    dashboard = where.removesuffix("/v1") + "/"
    if as_json:
        typer.echo(json.dumps({"base_url": where, "dashboard": dashboard}))
    else:
        typer.echo(f"base_url  {where}\ndashboard {dashboard}\nstop with Ctrl-C")


def _log_to_stderr() -> None:
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger("r2reasoner.gateway")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
