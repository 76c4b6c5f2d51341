"""Files are written whole or not at all: under another name first, then renamed."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from r2reasoner.errors import ConfigError


def write_whole(file: Path, content: str | bytes | Iterable[str], *, replace: bool = False) -> int:
    """Write a file in one step (readers see all of it or nothing); return how many pieces it had.

    Raises ConfigError where it exists and `replace` is False, or cannot be written; what was there
    before then stays.
    """
    pieces: Iterable[str | bytes] = [content] if isinstance(content, str | bytes) else content
    count = 0
    try:
        handle, temporary = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                for count, piece in enumerate(pieces, 1):  # noqa: B007
                    stream.write(piece if isinstance(piece, bytes) else piece.encode())
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            if replace:
                Path(temporary).replace(file)
            else:
                _link(temporary, file)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except FileExistsError:
        raise ConfigError(
            f"{file} exists; choose another --out, or --force to replace it"
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror or error}") from error
    return count


def _link(temporary: str, file: Path) -> None:
    """Give a file its name unless the name is taken: unlike a rename, a link never replaces."""
    try:
        os.link(temporary, file)
    except FileExistsError:
        raise
    except OSError:
        # This file system has no links.
        if file.exists():
            raise FileExistsError(file) from None
        Path(temporary).rename(file)
