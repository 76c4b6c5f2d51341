"""What a user already has: provider keys in the environment, model servers on this machine.

Only loopback addresses are probed, with short time-outs and in parallel; of a key only "is it set"
is asked. The lists of hosted models are starting points (as of November 2026), all with a list
price, and meant to be edited; `draft` makes a pool file of them. Left out: whether a key works or a
model answers, which `r2reasoner pool check` tells.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Group

PROBE_TIMEOUT_S: Final = 1.0
MAX_REPLY_BYTES: Final = 2**20
MAX_LOCAL_MODELS: Final = 50

# Ollama and LM Studio load models with this window unless told otherwise.
_LOCAL_CONTEXT: Final = 4096
_SIZE: Final = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s*([bBmM])(?![A-Za-z0-9])")


class Listed(NamedTuple):
    """A model that a source offers. `context` is tokens; `thinks` means before it answers."""

    model: str
    group: Group | None
    context: int
    thinks: bool = False
    capabilities: tuple[str, ...] = ()


class Source(NamedTuple):
    """A provider or server with its models from weakest to strongest."""

    name: str
    base_url: str
    key_env: str | None
    models: tuple[Listed, ...]


class Server(NamedTuple):
    """A server on this machine to ask for its models."""

    name: str
    base_url: str
    models_url: str


LOCAL_SERVERS: Final = (
    Server("ollama", "http://localhost:11434/v1", "http://localhost:11434/api/tags"),
    Server("vllm", "http://localhost:8000/v1", "http://localhost:8000/v1/models"),
    Server("lm-studio", "http://localhost:1234/v1", "http://localhost:1234/v1/models"),
)

# What OpenAI's thinking models want of a request: another name for the limit, no temperature.
_OPENAI: Final = ("fixed_temperature", "max_completion_tokens")

# OpenAI charges more for calls beyond 272,000 input tokens, so its windows end there.
PROVIDERS: Final = (
    Source(
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        (
            Listed("gpt-6-luna", Group.SMALL, 272_000, thinks=True, capabilities=_OPENAI),
            Listed("gpt-6.1-terra", Group.MEDIUM, 272_000, thinks=True, capabilities=_OPENAI),
            Listed("gpt-6.1-sol", Group.LARGE, 272_000, thinks=True, capabilities=_OPENAI),
        ),
    ),
    Source(
        "deepseek",
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        (Listed("deepseek-flash", Group.LARGE, 1_000_000, thinks=True),),
    ),
    Source(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        (
            Listed("qwen/qwen-2.5-7b-instruct", Group.SMALL, 32_768),
            Listed("meta-llama/llama-3.3-70b-instruct", Group.MEDIUM, 131_072),
            Listed("deepseek/deepseek-v3.2", Group.LARGE, 131_072),
        ),
    ),
    Source(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        (
            Listed("ministral-8b-latest", Group.SMALL, 131_072),
            Listed("mistral-small-latest", Group.MEDIUM, 131_072),
            Listed("mistral-medium-latest", Group.LARGE, 131_072),
        ),
    ),
    Source(
        "groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        (
            Listed("openai/gpt-oss-20b", Group.SMALL, 131_072, thinks=True),
            Listed("openai/gpt-oss-120b", Group.MEDIUM, 131_072, thinks=True),
        ),
    ),
    Source(
        "together",
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
        (
            Listed("Qwen/Qwen3.5-9B", Group.SMALL, 262_144, thinks=True),
            Listed("meta-llama/Llama-3.3-70B-Instruct-Turbo", Group.MEDIUM, 131_072),
            Listed("deepseek-ai/DeepSeek-V4-Pro-0813", Group.LARGE, 1_048_576, thinks=True),
        ),
    ),
)


def local_server(base_url: str) -> Server:
    """Return a server on this machine from its URL up to `/v1`.

    Raises ConfigError where the address is not a loopback one.
    """
    try:
        parts = urlsplit(base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        local = parts.scheme in ("http", "https") and _is_loopback(parts.hostname)
    except ValueError:
        local = False
    if not local or "@" in parts.netloc:
        raise ConfigError(
            f"{base_url}: expected a server on this machine, like http://localhost:8000/v1; "
            "write other endpoints into the pool file by hand"
        )
    base = base_url.rstrip("/")
    return Server(f"local-{port}", base, f"{base}/models")


async def find_sources(
    environ: Mapping[str, str],
    servers: Sequence[Server] = LOCAL_SERVERS,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> tuple[Source, ...]:
    """Return the servers of this machine that answer, then the providers whose key is set."""
    local = await asyncio.gather(*(_probe(server, timeout_s) for server in servers))
    keyed = [p for p in PROVIDERS if p.key_env and environ.get(p.key_env, "").strip()]
    return (*(source for source in local if source), *keyed)


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return host is not None
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def _probe(server: Server, timeout_s: float) -> Source | None:
    """Return what a server offers, or None where nothing that lists models answers in time."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.get(server.models_url, allow_redirects=False) as reply,
        ):
            if reply.status != 200:
                return None
            body = b""
            async for piece in reply.content.iter_chunked(65_536):
                body += piece
                if len(body) > MAX_REPLY_BYTES:
                    return None
            listing = json.loads(body)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):
        return None
    models = _listed(listing)
    return Source(server.name, server.base_url, None, models) if models else None


def _listed(listing: Any) -> tuple[Listed, ...]:
    """Return the chat models of an OpenAI or Ollama list, smallest first."""
    entries = (listing.get("data") or listing.get("models")) if isinstance(listing, dict) else None
    found: dict[str, tuple[float, int]] = {}
    for entry in entries if isinstance(entries, list) else []:
        name = (entry.get("id") or entry.get("name")) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not _usable(name):
            continue
        context = entry.get("max_model_len")
        usable_context = context if type(context) is int and context > 0 else _LOCAL_CONTEXT
        found[name] = (_billions(entry, name), usable_context)
    ordered = sorted(found.items(), key=lambda item: item[1][0])[-MAX_LOCAL_MODELS:]
    return tuple(Listed(name, _group(size), context) for name, (size, context) in ordered)


def _usable(name: str) -> bool:
    return name.isprintable() and 0 < len(name.strip()) == len(name) <= 100 and "embed" not in name


def _billions(entry: Mapping[str, Any], name: str) -> float:
    """Return a model's parameters in billions as its list or its name tells, else 0."""
    details = entry.get("details")
    told = details.get("parameter_size") if isinstance(details, dict) else None
    for text in (told, name):
        sizes = _SIZE.findall(text) if isinstance(text, str) else []
        if sizes:
            number, unit = sizes[-1]
            return float(number) * (1.0 if unit in "bB" else 1e-3)
    return 0.0


def _group(billions: float) -> Group | None:
    if not billions:
        return None
    if billions <= 4:
        return Group.SMALL
    return Group.MEDIUM if billions <= 40 else Group.LARGE
