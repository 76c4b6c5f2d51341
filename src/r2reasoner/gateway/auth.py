"""Who asks: a key, the admin, or any program of this machine while no key was ever made.

A page in a browser on this machine is not such a program, so a request without a key is refused
where its headers say that another site's page sent it, or that a name which somebody points to
this machine (DNS rebinding) led here.
"""

import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from r2reasoner.chat import MAX_SHOWN, Refusal
from r2reasoner.gateway.gateway import Gateway
from r2reasoner.gateway.keys import PREFIX, Key
from r2reasoner.hosts import is_loopback

SCHEME: Final = "bearer"
MOST_SECRET: Final = 200
_PARAMETERS: Final = frozenset(
    {"key", "api_key", "api-key", "apikey", "access_token", "token", "authorization"}
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Without a key and not the admin: anybody, where the gateway is open."""

    key: Key | None = None
    is_admin: bool = False

    @property
    def who(self) -> str:
        """Return a name to keep apart what belongs to different callers."""
        return self.key.id if self.key else "admin" if self.is_admin else ""

    def check_model(self, model: str) -> None:
        """Raise Refusal (403) for a model that the key may not ask for."""
        if self.key is None or not self.key.models:
            return
        if model.partition(":")[0] not in self.key.models and model not in self.key.models:
            allowed = ", ".join(self.key.models)
            raise Refusal(
                403,
                f"key {self.key.name!r} may not ask for {model[:80]!r}; it may for: {allowed}",
                code="model_not_allowed",
                param="model",
            )

    def may_see(self, owner: str | None) -> bool:
        """Tell whether this caller may see a trace of that key (None: of nobody)."""
        if self.is_admin or self.key is None:
            return True
        return owner == self.key.id


async def authenticate(gateway: Gateway, request: HTTPConnection) -> Caller:
    """Return who asks. Raises Refusal (401, 403)."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if not secret or scheme.lower() != SCHEME:
        if await _is_open(gateway):
            return _anybody(gateway, request)
        raise _unauthorized("this gateway needs a key: `Authorization: Bearer r2-…`")
    if gateway.is_admin_key(secret):
        return Caller(is_admin=True)
    key = await gateway.keys.find(secret) if len(secret) <= MOST_SECRET else None
    if key is None:
        if not secret.startswith(PREFIX) and await _is_open(gateway):
            return _anybody(gateway, request)  # clients send some key even if none is asked for
        raise _unauthorized("this key is not known here")
    if why := key.why_not(time.time()):
        raise _unauthorized(f"key {key.name!r} {why}")
    return Caller(key)


async def require_admin(gateway: Gateway, request: HTTPConnection) -> None:
    """Let the admin in, and anybody where the gateway is open. Raises Refusal (401, 403)."""
    caller = await authenticate(gateway, request)
    if caller.key is not None or (gateway.admin_key is not None and not caller.is_admin):
        raise Refusal(403, "this needs the admin key", code="not_admin")


def refuse_keys_in(query: bytes) -> None:
    """Raise Refusal (400) for a query string with a key: addresses end up in logs."""
    text = query.decode("latin-1").lower()
    names = {part.partition("=")[0] for part in text.split("&")}
    if names & _PARAMETERS or f"={PREFIX}" in text:
        raise Refusal(
            400,
            "a key never stands in an address: send it as `Authorization: Bearer …`, and make a new"
            " one, because this one is in logs now",
            code="key_in_query",
        )


async def _is_open(gateway: Gateway) -> bool:
    return gateway.options.open_access and not await gateway.keys.exist()


def _anybody(gateway: Gateway, request: HTTPConnection) -> Caller:
    """Return a caller without a key. Raises Refusal (403) for a page that is not ours."""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin", "")
    ours = (f"http://{host}", f"https://{host}", *gateway.options.allow_origins)
    if not is_loopback(_without_port(host)):
        raise _foreign(f"asked at 127.0.0.1 or localhost, not at {host[:MAX_SHOWN]!r}")
    if origin and origin not in ours:
        raise _foreign(f"not pages of {origin[:MAX_SHOWN]!r}")
    return Caller()


def _without_port(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _foreign(what: str) -> Refusal:
    return Refusal(
        403,
        f"without a key this gateway serves programs of this machine, {what}; a key lets others in:"
        " r2reasoner key create NAME",
        code="key_needed",
    )


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
