"""Where a server listens: whether only this machine reaches it, and what its clients point to."""

import ipaddress
from contextlib import suppress


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine and can be reached from no other."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def base_url(host: str, port: int) -> str:
    """Return where an OpenAI client on this machine points to."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
