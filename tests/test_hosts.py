"""Addresses that servers listen on."""

import pytest

from r2reasoner.hosts import base_url, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "", "local.host"])
def test_others_too(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9/v1"),
        ("0.0.0.0", "http://127.0.0.1:9/v1"),
        ("::", "http://[::1]:9/v1"),
        ("example.org", "http://example.org:9/v1"),
    ],
)
def test_what_clients_point_to(host: str, url: str) -> None:
    assert base_url(host, 9) == url
