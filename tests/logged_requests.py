"""Lines of request logs, as the shipped readers meet them."""

import json
from pathlib import Path
from typing import Any


def openai(question: str, answer: str, model: str = "large", **more: Any) -> dict[str, Any]:
    return {
        "request": {"model": model, "messages": [{"role": "user", "content": question}]},
        "response": {
            "choices": [{"message": {"role": "assistant", "content": answer}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        },
        **more,
    }


def litellm(question: str, answer: str, model: str = "large", **more: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "call_type": "acompletion",
        "status": "success",
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "response": {"choices": [{"message": {"content": answer}}]},
        "prompt_tokens": 100,
        "completion_tokens": 10,
        **more,
    }


def write_lines(file: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n")
    return file
