"""Prompts as text files; each trace records their hash."""

from functools import cache
from hashlib import sha256
from importlib.resources import files


@cache
def read(name: str) -> str:
    """Return a prompt's text."""
    return files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8")


@cache
def digest() -> str:
    """Return a short hash over all prompts."""
    texts = sorted(
        (entry.name, entry.read_text(encoding="utf-8"))
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".txt")
    )
    return sha256(repr(texts).encode()).hexdigest()[:12]
