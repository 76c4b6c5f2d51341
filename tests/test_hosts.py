"""Addresses that servers listen on."""

import pytest

from r2reasoner.errors import ConfigError
from r2reasoner.hosts import addresses, base_url, is_loopback, origin


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


def test_a_list_of_addresses() -> None:
    assert addresses("10.0.0.1, 10.1.0.0/16,::1") == ("10.0.0.1", "10.1.0.0/16", "::1")


@pytest.mark.parametrize("listed", ["", "*", "proxy", "10.0.0.1,", "10.0.0.1/16", "10.0.0.0/33"])
def test_what_is_no_list_of_addresses(listed: str) -> None:
    with pytest.raises(ConfigError, match="neither an address nor a network"):
        addresses(listed)


@pytest.mark.parametrize(
    "site", ["https://chat.example.org", "http://localhost:3000", "http://[::1]:80"]
)
def test_sites(site: str) -> None:
    assert origin(site) == site


@pytest.mark.parametrize(
    "site", ["*", "", "null", "example.org", "ftp://a", "http://a/", "http://b@a", "http://A"]
)
def test_what_is_no_site(site: str) -> None:
    with pytest.raises(ConfigError, match="no site"):
        origin(site)
