"""Where a webhook may lead: to hosts that the operator lists, at public addresses or his own.

Knows no HTTP. Reads WEBHOOK_ALLOWED_HOSTS and WEBHOOK_ALLOWED_NETWORKS.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from dispatcher.sdk import ConfigurationError

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME: Final = rf"({_LABEL}(?:\.{_LABEL})*)(?::([1-9][0-9]{{0,4}}))?"
# Stricter than any library's parser, so that no two parsers can read one URL in two ways.
_URL: Final = re.compile(rf"https://{_NAME}((?:[/?][A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)?)")
_ALLOWED: Final = re.compile(rf"(\*\.)?{_NAME}")
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")  # as inet_aton's forms end


def _networks(text: str) -> list[_Network]:
    return [ipaddress.ip_network(one) for one in text.split()]


# Refused inside the operator's own networks too: this host, link-local and the clouds' metadata,
# multicast, and IPv6 addresses that carry an IPv4 address past these rules.
_NEVER: Final = _networks(
    """0.0.0.0/8 169.254.0.0/16 168.63.129.16/32 224.0.0.0/4 255.255.255.255/32
    ::/128 fe80::/10 fd00:ec2::/32 fd20:ce::/32 ff00::/8
    ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 2001::/32 2002::/16"""
)
# Beside what ipaddress calls private, since its releases differ. Of IPv6 only 2000::/3 is public.
_NOT_PUBLIC: Final = _networks(
    """100.64.0.0/10 192.0.0.0/24 192.88.99.0/24 240.0.0.0/4
    ::/3 4000::/2 8000::/1 2001::/23 2001:db8::/32 3fff::/20"""
)


@dataclass(frozen=True)
class Place:
    """A URL that was checked."""

    host: str
    port: int
    path: str = field(repr=False)

    @property
    def netloc(self) -> str:
        return self.host if self.port == 443 else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Policy:
    """What the operator allows: names, `*.` before one for all below it, each with a port."""

    hosts: Sequence[tuple[str, int]]
    networks: Sequence[_Network]

    def place(self, key: str, url: str) -> Place:
        """This key's URL, checked. The failures do not show it: its query may be a secret."""
        match = _URL.fullmatch(url) if len(url) <= 1_000 else None
        if match is None or len(match[1]) > 253 or _NUMBER.fullmatch(match[1]):
            raise ConfigurationError(
                f"{key} must be https:// and a host's name with a path, at most 1000 characters of "
                "ASCII, without a user, an IP address, a fragment or a dot after the name."
            )
        place = Place(match[1].lower(), int(match[2] or 443), match[3])
        if not any(place.port == port and _covers(name, place.host) for name, port in self.hosts):
            raise ConfigurationError(
                f"{key} names a host and port that this worker's operator does not allow; "
                "WEBHOOK_ALLOWED_HOSTS lists those that are."
            )
        return place

    def addresses(self, place: Place) -> list[str]:
        """The host's addresses, none if it has none now. All must be allowed."""
        try:
            told = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except OSError:
            return []
        found = list(dict.fromkeys(str(entry[4][0]) for entry in told))
        if not all(self._reaches(ipaddress.ip_address(text)) for text in found):
            raise ConfigurationError(
                f"The host {place.host} has an address that is not public; this worker's operator "
                "permits networks of his own in WEBHOOK_ALLOWED_NETWORKS."
            )
        return found

    def _reaches(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        if any(address in network for network in _NEVER):
            return False
        if any(address in network for network in self.networks):
            return True
        return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def _covers(name: str, host: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def operators_policy() -> Policy:
    """From the environment, read anew for each job."""
    hosts, networks = _listed("WEBHOOK_ALLOWED_HOSTS"), _listed("WEBHOOK_ALLOWED_NETWORKS")
    if not hosts:
        raise ConfigurationError(
            "This worker calls no webhooks until its operator sets WEBHOOK_ALLOWED_HOSTS to the "
            "hosts that it may call, such as hooks.example.com,*.example.org:8443."
        )
    with suppress(ValueError):
        return Policy(
            [_allowed_host(text) for text in hosts],
            [ipaddress.ip_network(text) for text in networks],
        )
    raise ConfigurationError(
        "This worker's operator must correct WEBHOOK_ALLOWED_HOSTS (names, *.names, ports) or "
        "WEBHOOK_ALLOWED_NETWORKS (such as 10.1.0.0/16): an entry cannot be read."
    )


def _listed(name: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]


def _allowed_host(text: str) -> tuple[str, int]:
    match = _ALLOWED.fullmatch(text)
    if match is None or _NUMBER.fullmatch(match[2]):
        raise ValueError
    return f"{match[1] or ''}{match[2]}".lower(), int(match[3] or 443)
