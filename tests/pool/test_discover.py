import json
import socket

import pytest
from local_server import closed_port, page, serving

from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Group
from r2reasoner.pool.discover import (
    LOCAL_SERVERS,
    MAX_REPLY_BYTES,
    PROVIDERS,
    Listed,
    Server,
    Source,
    find_sources,
    local_server,
)
from r2reasoner.pool.prices import public_price

OLLAMA = {
    "models": [
        {"name": "llama3.1:70b", "details": {"parameter_size": "70.6B"}},
        {"name": "qwen2.5:0.5b", "details": {"parameter_size": "494.03M"}},
        {"name": "nomic-embed-text", "details": {"parameter_size": "137M"}},
        {"name": "mistral", "details": {"parameter_size": "7.2B"}},
    ]
}


async def found_at(
    pages: dict[str, tuple[int, bytes]], path: str = "/v1/models"
) -> tuple[Source, ...]:
    with serving(pages) as address:
        server = Server("mine", f"{address}/v1", f"{address}{path}")
        return await find_sources({}, [server])


async def test_ollama_lists_its_chat_models_by_size() -> None:
    (source,) = await found_at({"/api/tags": page(OLLAMA)}, "/api/tags")
    assert source.key_env is None
    assert source.base_url.endswith("/v1")
    assert source.models == (
        Listed("qwen2.5:0.5b", Group.SMALL, 4096),
        Listed("mistral", Group.MEDIUM, 4096),
        Listed("llama3.1:70b", Group.LARGE, 4096),
    )


async def test_an_openai_list_gives_window_and_size_by_name() -> None:
    models = {
        "object": "list",
        "data": [
            {"id": "meta/Llama-3.3-70B-Instruct", "max_model_len": 16384},
            {"id": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 32768},
            {"id": "house-model", "max_model_len": -1},
        ],
    }
    (source,) = await found_at({"/v1/models": page(models)})
    assert source.models == (
        Listed("house-model", None, 4096),
        Listed("Qwen/Qwen2.5-7B-Instruct", Group.MEDIUM, 32768),
        Listed("meta/Llama-3.3-70B-Instruct", Group.LARGE, 16384),
    )


@pytest.mark.parametrize(
    "reply",
    [
        page({"data": []}),
        page({"data": "x"}),
        page([1, 2]),
        page({"data": [None, 3, {"id": 4}, {"id": ""}, {"id": "a\nb"}, {"id": "x" * 200}]}),
        page({"data": [{"id": "m"}]}, status=401),
        page({"data": [{"id": "m"}]}, status=500),
        (200, b"<html>my blog</html>"),
        (200, b"\xff\xfe"),
        (200, b"[" * 100_000),
        (200, json.dumps({"data": [{"id": "m"}], "pad": "x" * MAX_REPLY_BYTES}).encode()),
    ],
    ids=range(10),
)
async def test_what_does_not_list_models_is_not_found(reply: tuple[int, bytes]) -> None:
    assert await found_at({"/v1/models": reply}) == ()


async def test_redirects_are_not_followed() -> None:
    with serving({"/v1/models": page({"data": [{"id": "m"}]})}) as other:
        reply = (302, f"{other}/v1/models".encode())
        assert await found_at({"/v1/models": reply}) == ()


async def test_closed_and_silent_ports_are_not_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = [f"http://127.0.0.1:{silent.getsockname()[1]}", closed_port()]
        servers = [Server("s", f"{url}/v1", f"{url}/v1/models") for url in urls]
        assert await find_sources({}, servers, timeout_s=0.2) == ()


async def test_keys_that_are_set_give_their_providers_and_are_not_kept() -> None:
    environ = {"OPENAI_API_KEY": "sk-canary", "GROQ_API_KEY": " ", "MISTRAL_API_KEY": "k"}
    sources = await find_sources(environ, [])
    assert [source.name for source in sources] == ["openai", "mistral"]
    assert "canary" not in repr(sources)


async def test_servers_of_this_machine_come_first() -> None:
    with serving({"/v1/models": page({"data": [{"id": "m"}]})}) as address:
        server = local_server(f"{address}/v1")
        sources = await find_sources({"DEEPSEEK_API_KEY": "k"}, [server])
    assert [source.name for source in sources] == [server.name, "deepseek"]


@pytest.mark.parametrize("url", ["http://localhost:8000/v1/", "http://127.0.0.2:8000/v1"])
def test_a_loopback_server_is_asked_for_its_models(url: str) -> None:
    server = local_server(url)
    assert server.name == "local-8000"
    assert server.models_url.endswith(":8000/v1/models")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:8000/v1",
        "http://example.com/v1",
        "http://localhost.example.com/v1",
        "http://127.0.0.1@example.com/v1",
        "http://example.com@127.0.0.1/v1",
        "http://0.0.0.0:8000/v1",
        "http://169.254.169.254/v1",
        "file:///etc/passwd",
        "localhost:8000",
        "http://localhost:port/v1",
        "http://[::1/v1",
        "",
    ],
)
def test_other_addresses_are_never_probed(url: str) -> None:
    with pytest.raises(ConfigError, match="expected a server on this machine"):
        local_server(url)


def test_the_usual_servers_are_on_this_machine() -> None:
    assert all(local_server(server.base_url) for server in LOCAL_SERVERS)


@pytest.mark.parametrize("source", PROVIDERS, ids=lambda source: source.name)
def test_every_listed_hosted_model_has_a_list_price_from_weak_to_strong(source: Source) -> None:
    order = [Group.SMALL, Group.MEDIUM, Group.LARGE]
    groups = [order.index(listed.group) for listed in source.models if listed.group]
    assert groups == sorted(groups)
    assert len(groups) == len(source.models)
    for listed in source.models:
        assert public_price(listed.model, source.base_url) is not None
