"""What every result of a benchmark says of its making, and how it is written."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def provenance(*packages: str) -> dict[str, Any]:
    """Return command, commit, date and machine, and the versions of the packages named."""
    return {
        "command": f"python {' '.join(sys.argv)}",
        "commit": _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def write_result(file: Path, result: dict[str, Any]) -> None:
    """Print a result and write it."""
    text = json.dumps(result, indent=2)
    print(text)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()
