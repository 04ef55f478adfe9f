"""What may be posted to: URLs as they are given, and the addresses that are really connected to.

A name says nothing about where it leads, now or a second later. So the check that protects is made on each
address right before a socket is opened to it; that of the URL only tells early what could never work.
"""

import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from yarl import URL

from app.errors import InvalidInput
from app.settings import Network, Settings
from app.validation import text

MAX_URL = 2_048
Address = IPv4Address | IPv6Address

_ALLOWING = "CARILLON_WEBHOOK_ALLOWED_NETWORKS"

# After the registries of special addresses (IANA), and two addresses at which clouds answer their machines.
_REFUSED = tuple(
    (ip_network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by customers of a provider"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("169.254.169.254/32", "a cloud's metadata service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved for benchmarks"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "private (NAT64)"),
        ("100::/64", "reserved to discard"),
        ("2001::/32", "a tunnel (Teredo)"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "reserved for documentation"),
        ("2002::/16", "a tunnel (6to4)"),
        ("3fff::/20", "reserved for documentation"),
        ("5f00::/16", "reserved for segment routing"),
        ("fd00:ec2::254/128", "a cloud's metadata service"),
        ("fd20:ce::254/128", "a cloud's metadata service"),
        ("fc00::/7", "private (unique local)"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private (site-local)"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_IPV6 = ip_network("2000::/3")  # all that is given out; what is not in here is refused as well
# Where an IPv6 address has an IPv4 address as its last 32 bits: mapped, translated, NAT64.
_EMBEDDING = tuple(ip_network(network) for network in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
_ISATAP = (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe")


class AddressRefused(OSError):
    """The host's address is one that must not be posted to; the message says of which kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"Refused: the host's address is {kind}. Whoever runs Carillon can allow networks: {_ALLOWING}."
        )


def refusal(address: Address, allowed: Sequence[Network]) -> str | None:
    """Of which kind an address is that must not be posted to; None if it may be. An address in one of the
    `allowed` networks may be, in each of its spellings."""
    forms = tuple(_forms(address))
    if any(form in network for form in forms for network in allowed):
        return None
    for form in forms:
        for network, kind in _REFUSED:
            if form in network:
                return kind
    return "reserved" if isinstance(address, IPv6Address) and not _is_given_out(address) else None


def _forms(address: Address) -> Iterator[Address]:
    """The address, and the one that it stands for."""
    yield address
    if isinstance(address, IPv6Address) and (_embeds(address) or address.packed[8:12] in _ISATAP):
        yield IPv4Address(address.packed[12:])


def _embeds(address: IPv6Address) -> bool:
    return any(address in network for network in _EMBEDDING)


def _is_given_out(address: IPv6Address) -> bool:
    return address in _GLOBAL_IPV6 or _embeds(address)


class Guard:
    """Opens the sockets of outgoing posts: to allowed addresses only.

    Pass `open` to aiohttp as `socket_factory`. Literal addresses, too, come by here, not by a resolver.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = tuple(allowed)

    def open(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one address, as `getaddrinfo` gave it. Raises `AddressRefused`."""
        family, kind, protocol, _, target = info
        refused = self._refusal(target[0]) if family in (socket.AF_INET, socket.AF_INET6) else "of no network"
        if refused:
            raise AddressRefused(refused)
        return socket.socket(family=family, type=kind, proto=protocol)

    def _refusal(self, host: str) -> str | None:
        try:
            return refusal(ip_address(host.partition("%")[0]), self._allowed)
        except ValueError:
            return "none"


def check_url(url: Any, settings: Settings) -> str:
    """The URL of an endpoint, as given. Raises `InvalidInput` or `LimitExceeded` for one that is never
    posted to: not https (unless allowed), with credentials, or to a refused address, however written."""
    given = text(url, least=1, most=MAX_URL)
    if not given.isprintable() or " " in given or "\\" in given:
        raise InvalidInput("must be a URL without white space, control characters or backslashes")
    try:
        parsed = URL(given)
        host, authority = parsed.host, urlsplit(given).netloc
    except ValueError as error:
        raise InvalidInput("must be a URL such as https://example.com/webhooks") from error
    _check_scheme(parsed, settings)
    if not host or parsed.port == 0:
        raise InvalidInput(
            "must be a URL with a host, and a port from 1 if any, such as https://example.com/webhooks"
        )
    if "@" in authority:
        raise InvalidInput("must not contain a user or password; every post is signed, verify that instead")
    if "#" in given:
        raise InvalidInput("must not contain a fragment (#...), which is never sent")
    if "[" in authority and ":" not in host:
        raise InvalidInput("must have an IPv6 address within the brackets")
    _check_host(host, settings.webhook_allowed_networks)
    return given


def _check_scheme(parsed: URL, settings: Settings) -> None:
    if parsed.scheme == "https" or (parsed.scheme == "http" and settings.webhook_allow_http):
        return
    if parsed.scheme == "http":
        raise InvalidInput(
            "must begin with https:// (whoever runs Carillon can allow http by CARILLON_WEBHOOK_ALLOW_HTTP)"
        )
    raise InvalidInput("must be a URL that begins with https://")


def _check_host(host: str, allowed: Sequence[Network]) -> None:
    """Raises for a literal address that is refused, and for names that can only lead to one."""
    name = host.rstrip(".").lower()
    address = literal(name)
    if address is not None:
        kind = refusal(address, allowed)
    elif name == "localhost" or name.endswith(".localhost"):
        kind = refusal(IPv4Address("127.0.0.1"), allowed) and refusal(IPv6Address("::1"), allowed)
    elif not _is_name(name):
        raise InvalidInput("must have the name or the address of a host")
    else:
        return
    if kind:
        raise InvalidInput(
            f"must not lead to an address that is {kind} (whoever runs Carillon can allow it: {_ALLOWING})"
        )


def _is_name(name: str) -> bool:
    """Whether it can be a name. One that ends in a number is none: it is an IPv4 address, or nothing."""
    labels = name.split(".")
    number = labels[-1].isdecimal() or labels[-1].startswith("0x")
    return all(label and len(label) <= 63 for label in labels) and not (number or "%" in name or ":" in name)


def literal(host: str) -> Address | None:
    """The address that a host's text means without asking anybody, in any spelling that the system's own
    functions take: 127.1, 2130706433, 0x7f.0.0.1, 0177.0.0.1, ::ffff:127.0.0.1; None for a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None
