"""Where a policy's base model lies: in a folder, or on the Hugging Face hub, by its name."""

import re
from pathlib import Path
from typing import Final

from r2reasoner.errors import ConfigError
from r2reasoner.training.recipe import POLICIES, Recipe

WANTED: Final = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_base(base: str) -> Path:
    """Return the folder of a base model; one that is named is fetched, unless it was before.

    Raises ConfigError where there is none.
    """
    folder = Path(base).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() or not _NAME.fullmatch(base):
        raise ConfigError(
            f"{base}: neither a model's folder (config.json) nor a name on the Hugging Face hub,"
            " like Qwen/Qwen2.5-7B-Instruct"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(base, allow_patterns=list(WANTED)))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{base}: no such folder, and not to be had from the Hugging Face hub:"
            f" {str(error).splitlines()[0]}"
        ) from error


def check_bases(recipe: Recipe) -> None:
    """Raise ConfigError where a policy's base is not to be had."""
    for name in POLICIES:
        if recipe.policies[name].shape is None:
            find_base(recipe.policies[name].base)
