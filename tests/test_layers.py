"""A module imports only from its own layer and those before it, wherever the import stands."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import r2reasoner

ROOT = Path(r2reasoner.__file__).parent
LAYERS = (
    "types errors files sandbox",
    "config plan prompts turns events chat hosts",
    "pool",
    "telemetry budget batching database ledger migrations retention schema storage tables mock",
    "client",
    "outcomes",
    "estimate policy decomposer allocator executor",
    "router references calibrate newcomer bill capabilities",
    "__init__",
    "benchmarks",
    "strategies",
    "evaluation training nano",
    "report savings gateway",
    "cli",
)
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names.split()}
ENCODES = "outcomes.routers.embed"
"""An option that reads sentences with an encoder."""
TORCH_ALLOWED = {ENCODES, "nano.fit", "nano.convert", "nano.interchangeable"} | {
    f"training.{name}" for name in ("alternate", "grpo", "policies", "serving", "sft", "states")
}


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package; the package itself is `__init__`."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield the absolute names that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """Return the module of ours that an imported name is in; None for other packages."""
    package, *parts = name.split(".")
    if package != "r2reasoner":
        return None
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


def top(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_a_layer_and_every_name_a_module() -> None:
    assert {top(module) for module in MODULES} == set(LAYER)


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__init__"])
def test_imports_point_downwards_only(module: str) -> None:
    upwards = {
        name
        for name in map(own, imports(MODULES[module]))
        if name is not None and LAYER[top(name)] > LAYER[top(module)]
    }
    assert not upwards, f"{module} imports from above: {', '.join(sorted(upwards))}"


def test_the_public_names_come_from_the_engine() -> None:
    used = {own(name) for name in imports(MODULES["__init__"])} - {None}
    assert all(LAYER[top(str(name))] < LAYER["__init__"] for name in used)


def test_only_what_trains_imports_torch() -> None:
    using = {
        module
        for module, path in MODULES.items()
        if any(top(name) in ("torch", "transformers", "safetensors") for name in imports(path))
    }
    assert using <= TORCH_ALLOWED


def test_the_check_sees_imports_that_are_hidden() -> None:
    assert own("r2reasoner.prompts") == "prompts"
    assert own("r2reasoner.pool.cards.Card") == "pool.cards"
    assert own("r2reasoner.__version__") == "__init__"
    assert own("aiohttp.web") is None
    assert "r2reasoner.client.embedded.EmbeddedClient" in set(imports(MODULES["client"]))
