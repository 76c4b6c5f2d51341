"""Where a server listens: whether only this machine reaches it, and what its clients point to."""

import ipaddress
import re
from contextlib import suppress

from r2reasoner.errors import ConfigError


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


def addresses(listed: str) -> tuple[str, ...]:
    """Return the addresses and networks of a list like `10.0.0.1, 10.1.0.0/16`.

    Raises ConfigError for what is neither: a name, an empty entry, bits beyond a network's mask.
    """
    found = tuple(part.strip() for part in listed.split(","))
    for each in found:
        try:
            ipaddress.ip_network(each)
        except ValueError as error:
            raise ConfigError(f"neither an address nor a network: {error}") from None
    return found


def origin(text: str) -> str:
    """Return a site as browsers name it, like `https://chat.example.org`. Raises ConfigError."""
    found = re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]+)?|https?://\[[0-9a-f:]+\](:[0-9]+)?", text)
    if found is None:
        raise ConfigError(f"no site: {text!r}; expected one like https://chat.example.org")
    return text
