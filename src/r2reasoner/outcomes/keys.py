"""What makes two requests one: the key under which an answer is kept.

Not in it: what only labels a call (role, subtask, note), whether log-probabilities were wanted,
the name of the card and the folder or pool file that it stands in.
"""

import json
import os
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from r2reasoner.client.base import ChatRequest
from r2reasoner.client.embedded import CHECKED_FILES, checksum
from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card


def answer_key(card: Card, request: ChatRequest) -> str:
    """Return the key of a request to a model: 32 hexadecimal digits.

    Raises ConfigError where an embedded model without a checksum has no weights on disk.
    """
    parts = [_stable(card) or _on_disk(card)]
    parts.append(f"{request.max_tokens} {float(request.temperature)} {request.rank}")
    if request.stop or request.response_format:
        shape = [request.stop, request.response_format or None]
        parts.append(json.dumps(shape, sort_keys=True, default=dict))
    # With its length before it, no text can pass for the end of a message.
    parts += [f"{m.role} {len(m.content)} {m.content}" for m in request.messages]
    text = "\n".join(parts)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def revision(card: Card) -> str:
    """Return what stands behind a card: its weights' sha256, or the model id at its endpoint."""
    if card.endpoint.kind != "embedded":
        return card.model
    return card.sha256 or _sha256_now(card)


@lru_cache(maxsize=4096)
def _stable(card: Card) -> str | None:
    """Return what identifies a model; None where that must be looked up anew each time."""
    if card.endpoint.kind != "embedded":
        return f"{card.endpoint.base_url.rstrip('/')} {card.model}"
    return None if card.sha256 is None else _embedded(card, card.sha256)


def _on_disk(card: Card) -> str:
    return _embedded(card, _sha256_now(card))


def _embedded(card: Card, sha256: str) -> str:
    # Near ties, another version or precision may write another token.
    return f"ctranslate2 {_engine()} float32 {sha256} {card.model}"


@lru_cache(maxsize=1)
def _engine() -> str:
    return version("ctranslate2")


def _sha256_now(card: Card) -> str:
    """Return the checksum of weights that a pool file vouches for no checksum of.

    Training may have put others in their place since the last look.
    """
    folder, files = _files(card)
    try:
        stats = map(os.stat, files)
        return _sha256(folder, tuple((s.st_mtime_ns, s.st_size, s.st_ino) for s in stats))
    except OSError as error:
        raise ConfigError(f"{folder}: no converted model here ({error.strerror})") from error


@lru_cache(maxsize=4096)
def _files(card: Card) -> tuple[Path, tuple[str, ...]]:
    if card.endpoint.path is None:
        raise ConfigError(f"endpoint {card.endpoint.name!r}: an embedded one needs a path")
    folder = card.endpoint.path / card.model
    return folder, tuple(str(folder / name) for name in CHECKED_FILES)


@lru_cache(maxsize=256)
def _sha256(folder: Path, stamp: tuple[tuple[int, int, int], ...]) -> str:
    return checksum(folder)
