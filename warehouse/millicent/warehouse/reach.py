"""What endpoints may reach: how an address has to be written, and which networks are refused.

An address is refused unless it is of the public internet, however it is written: whoever may add an endpoint must not
make this process talk to its own host, its network, or the metadata service of a cloud. An operator opens networks with
the setting `webhook_allow`; what `_NEVER` lists stays shut even so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST: Final = 2048
"""Characters of an address."""
PORTS: Final = {"https": 443, "http": 80, "smtps": 465, "smtp": 587}
CLEAR: Final = frozenset({"http"})
"""Schemes that keep nothing from whoever listens on the way."""


class ForbiddenAddressError(ValueError):
    """An address that endpoints may not have; the message names the address, the rule and the remedy."""


class Target(NamedTuple):
    """An address taken apart: nothing has to be parsed again, so that nobody can read it in another way."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """Host and port as a `Host` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Reach:
    """What endpoints of an installation may reach.

    Attributes:
        allow: Networks beyond the public internet.
        allow_http: Whether something may be sent in clear text.
    """

    allow: tuple[Network, ...] = ()
    allow_http: bool = False

    def target(self, url: str, schemes: tuple[str, ...] = ("https", "http")) -> Target:
        """Take an address apart; a host that is an IP address is checked here, a name when it is resolved.

        Raises:
            ForbiddenAddressError: it is written in a way that is refused, or leads where endpoints may not go.
        """
        shown = _shown(url)
        if len(url) > LONGEST:
            raise ForbiddenAddressError(f"{shown!r}… is longer than {LONGEST:,} characters: use a shorter address")
        if not (found := _URL.fullmatch(url)):
            raise ForbiddenAddressError(
                f"{shown!r} is no address that is taken: write {schemes[0]}://host/path in ASCII letters, without "
                "user, password, fragment, blanks or backslashes, and names of other alphabets as xn--…"
            )
        scheme, host, v6, port, path = (found[name] for name in ("scheme", "host", "v6", "port", "path"))
        scheme = scheme.lower()
        if scheme not in schemes:
            known = " or ".join(f"{one}://" for one in schemes)
            raise ForbiddenAddressError(f"{shown!r} begins with {scheme}://: write {known}")
        if scheme in CLEAR and not self.allow_http:
            raise ForbiddenAddressError(
                f"{shown!r} would be sent in clear text: write https://, or set webhook_allow_http"
            )
        at = int(port) if port else PORTS[scheme]
        if not 0 < at < 65536:
            raise ForbiddenAddressError(f"{shown!r} has port {at}: write one from 1 to 65535, or none")
        return Target(
            scheme,
            self._host(v6 or host.lower(), shown, literal=v6 is not None),
            at,
            path if path[:1] == "/" else "/" + path,
        )

    def _host(self, host: str, shown: str, *, literal: bool) -> str:
        if literal or _NUMBER.fullmatch(host.rpartition(".")[2]):
            try:
                address = ip_address(host)
            except ValueError as error:
                raise ForbiddenAddressError(
                    f"{shown!r} has a host that is a number but no plain IP address: write four decimal numbers "
                    "without leading zeros, an IPv6 address in brackets without a zone, or a name"
                ) from error
            self.check(address, host)
            return str(address)
        if len(host) > _LONGEST_NAME or not _NAME.fullmatch(host):
            raise ForbiddenAddressError(
                f"{shown!r} has a host that is no name: write labels of letters, digits and hyphens, with single dots "
                "between them and none at the end"
            )
        if not self.allow and self.is_inside(host):
            raise ForbiddenAddressError(
                f"{host} is a name of a private network: put that network into the setting webhook_allow, or use a "
                "name of the public internet"
            )
        return host

    @staticmethod
    def is_inside(host: str) -> bool:
        """Whether a name means something on private networks alone."""
        return "." not in host or host.rpartition(".")[2] in _INSIDE

    def check(self, address: Address, host: str) -> None:
        """Refuse an address that `host` leads to unless it is public or allowed.

        Raises:
            ForbiddenAddressError: it is neither, or is never allowed.
        """
        named = f"{host} ({address})" if host != str(address) else str(address)
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise ForbiddenAddressError(f"{named} has a zone: endpoints are reached by addresses without one")
        for one in (address, *_within(address)):
            if why := _why(one, _NEVER):
                raise ForbiddenAddressError(f"{named} is {why}, which no endpoint may be: use another address")
        if any(address in network for network in self.allow if network.version == address.version):
            return
        why = _why(address, _SPECIAL) or ("" if address.is_global else "not of the public internet")
        if not why and _within(address):
            why = "an address that leads to another one"
        if not why and not _NUMBER.fullmatch(host.rpartition(".")[2]) and ":" not in host and self.is_inside(host):
            why = "what a name of a private network leads to"
        if why:
            raise ForbiddenAddressError(
                f"{named} is {why}: use a public address, or put its network into the setting webhook_allow"
            )


def networks(told: list[str]) -> tuple[Network, ...]:
    """Networks as a setting names them.

    Raises:
        ValueError: one is none; the message says which, and how to write it.
    """
    found = []
    for one in told:
        try:
            found.append(ip_network(one.strip()))
        except ValueError as error:
            raise ValueError(
                f"{one[:60]!r} is no network ({error}): write 10.1.0.0/16, 192.168.7.9 or fd00::/8"
            ) from error
    return tuple(found)


def _shown(url: str) -> str:
    """How an address begins, without what may be secret in it."""
    begin, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    host = _AFTER_HOST.split(rest, maxsplit=1)[0]
    user, at, name = host.rpartition("@")
    return (begin + slashes + ("…@" if at else user) + name + ("/…" if len(host) < len(rest) else ""))[:80]


def _why(address: Address, table: tuple[tuple[Network, str], ...]) -> str:
    return next((words for network, words in table if network.version == address.version and address in network), "")


def _within(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address may be taken for, or lead to."""
    if isinstance(address, IPv4Address) or address.is_loopback:
        return ()
    whole = int(address)
    low, middle = IPv4Address(whole & _32), IPv4Address(whole >> 80 & _32)
    if any(address in network for network in _LOW_BITS) or whole >> 32 & _32 in _ISATAP:
        return (low,)
    if address in _6TO4:
        return (middle,)
    if address in _TEREDO:
        return (IPv4Address(whole >> 64 & _32), IPv4Address(whole & _32 ^ _32))
    return ()


_32: Final = 0xFFFFFFFF
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
_6TO4: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_LOW_BITS: Final = tuple(
    IPv6Network(one) for one in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z]{1,8})://(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9.-]{1,255}))"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>(?:/[!$-;=?-Z_a-z~]*)?(?:\?[!$-;=?-Z_a-z~]*)?)",
    re.ASCII,
)
_AFTER_HOST: Final = re.compile(r"[/?#]")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
"""The last label of a host that a resolver may take for a number."""
_LONGEST_NAME: Final = 253
_NAME: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.ASCII)
_INSIDE: Final = frozenset(
    {"local", "localhost", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "test",
     "invalid", "example", "onion"}
)  # fmt: skip
"""Last labels that no public name has."""


def _table(rows: dict[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(network), words) for network, words in rows.items())


_NEVER: Final = _table(
    {
        "0.0.0.0/8": "an unspecified address",
        "::/128": "an unspecified address",
        "169.254.0.0/16": "a link-local address, such as metadata services of clouds have",
        "fe80::/10": "a link-local address, such as metadata services of clouds have",
        "fec0::/10": "a site-local address",
        "100.100.100.200/32": "a metadata service",  # Alibaba Cloud
        "168.63.129.16/32": "a metadata service",  # Azure, though of the public internet
        "192.0.0.192/32": "a metadata service",  # Oracle Cloud
        "fd00:ec2::254/128": "a metadata service",  # AWS
        "fd20:ce::254/128": "a metadata service",  # Google Cloud
        "224.0.0.0/4": "a multicast address",
        "ff00::/8": "a multicast address",
        "240.0.0.0/4": "a reserved or broadcast address",
    }
)
"""What `webhook_allow` does not open either, and why."""
_SPECIAL: Final = _table(
    {
        "10.0.0.0/8": "a private address",
        "100.64.0.0/10": "an address of a carrier's own network",
        "127.0.0.0/8": "this host itself",
        "172.16.0.0/12": "a private address",
        "192.0.0.0/24": "an address of a special purpose",
        "192.0.2.0/24": "an address for documentation",
        "192.31.196.0/24": "an address of a special purpose",
        "192.52.193.0/24": "an address of a special purpose",
        "192.88.99.0/24": "an address of a relay",
        "192.168.0.0/16": "a private address",
        "192.175.48.0/24": "an address of a special purpose",
        "198.18.0.0/15": "an address for benchmarks",
        "198.51.100.0/24": "an address for documentation",
        "203.0.113.0/24": "an address for documentation",
        "::1/128": "this host itself",
        "::ffff:0:0/96": "an IPv4 address written as IPv6",
        "64:ff9b::/96": "an IPv4 address behind a translator",
        "64:ff9b:1::/48": "an IPv4 address behind a translator",
        "2001::/23": "an address of a special purpose",
        "2001:db8::/32": "an address for documentation",
        "2002::/16": "an IPv4 address behind a relay",
        "2620:4f:8000::/48": "an address of a special purpose",
        "3fff::/20": "an address for documentation",
        "fc00::/7": "a private address",
        "::/3": "not of the public internet",
        "4000::/2": "not of the public internet",
        "8000::/1": "not of the public internet",
    }
)
"""IANA's special-purpose registries and, of IPv6, all but 2000::/3. Python's own idea of them differs by version."""
