"""Hosts, ports, URLs and e-mail addresses."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from headrace.checks.values import Check, NotAllowedError, Whole, is_printable

__all__ = [
    "Advertised",
    "Bootstrap",
    "Email",
    "Host",
    "HostName",
    "Listen",
    "Port",
    "WebUrl",
    "endpoints",
    "is_everywhere",
    "is_loopback",
    "url_host",
]

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")
_LONGEST_NAME = 253
_HIGHEST_PORT = 65535
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([^@]+)")


class Host(Check):
    """A host name or an IP address. Brackets around IPv6 are removed."""

    def __init__(self) -> None:
        super().__init__(
            "a host name or an IP address, without a scheme and without a port, such as "
            "broker.example.com, 10.0.0.7 or ::1"
        )

    def read(self, value: object) -> str:
        """Read one host."""
        if not isinstance(value, str):
            raise NotAllowedError
        return _host(value.strip())


class Bootstrap(Check):
    """Addresses of Kafka's brokers: ``host:port``, comma-separated, IPv6 in brackets."""

    def __init__(self) -> None:
        super().__init__(
            "one or more addresses with a port, comma-separated, such as 127.0.0.1:9092, "
            "kafka-1.example.com:9092 or [::1]:9092"
        )

    def read(self, value: object) -> str:
        """Read the addresses and normalise each."""
        if not isinstance(value, str):
            raise NotAllowedError
        found = endpoints(value)
        if len(set(found)) < len(found):
            msg = "an address is given twice"
            raise ValueError(msg)
        return ",".join(f"{url_host(host)}:{port}" for host, port in found)


class Listen(Check):
    """Addresses of this machine for a server to listen on: ``ip:port``, IPv6 in brackets."""

    def __init__(self, *, several: bool) -> None:
        number = (
            "one or more IP addresses of this machine, each with a port, comma-separated"
            if several
            else "an IP address of this machine with a port"
        )
        super().__init__(f"{number}, such as 0.0.0.0:8883, 192.0.2.7:8883 or [::]:8883")
        self._several = several

    def read(self, value: object) -> str:
        """Read the addresses, and write each in one form."""
        if not isinstance(value, str) or ("," in value and not self._several):
            raise NotAllowedError
        found = endpoints(value)
        if len(set(found)) < len(found):
            msg = "an address is given twice"
            raise ValueError(msg)
        for host, _ in found:
            ipaddress.ip_address(host)
        return ",".join(f"{url_host(host)}:{port}" for host, port in found)


class Advertised(Check):
    """The address at which clients find a server: ``host:port``, IPv6 in brackets."""

    def __init__(self) -> None:
        super().__init__(
            "the host name or IP address that clients use, with a port, such as "
            "kafka.example.com:9094"
        )

    def read(self, value: object) -> str:
        """Read one address."""
        if not isinstance(value, str) or "," in value:
            raise NotAllowedError
        ((host, port),) = endpoints(value)
        if is_everywhere(host):
            msg = f"no client can connect to {host}"
            raise ValueError(msg)
        return f"{url_host(host)}:{port}"


class WebUrl(Check):
    """An HTTP or HTTPS URL without query and fragment."""

    def __init__(self) -> None:
        super().__init__(
            "a URL that begins with http:// or https://, such as https://airflow.example.com"
        )

    def read(self, value: object) -> str:
        """Read a URL."""
        if not isinstance(value, str) or not is_printable(value) or " " in value:
            raise NotAllowedError
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            raise NotAllowedError
        if "@" in parts.netloc or "?" in value or "#" in value:
            raise NotAllowedError
        host = parts.hostname or ""
        _host(host)
        if parts.port == 0 or parts.netloc.endswith(":"):
            raise NotAllowedError
        return value.rstrip("/")


class Email(Check):
    """E-mail addresses."""

    def __init__(self, *, several: bool = False) -> None:
        number = "one or more e-mail addresses, comma-separated" if several else "an e-mail address"
        super().__init__(f"{number}, such as operators@example.com")
        self._several = several

    def read(self, value: object) -> str:
        """Read one address, or several."""
        if not isinstance(value, str):
            raise NotAllowedError
        addresses = [part.strip() for part in value.split(",")] if self._several else [value]
        for address in addresses:
            match = _EMAIL.fullmatch(address)
            if match is None or ".." in address:
                raise NotAllowedError
            _host(match[1])
        return ", ".join(addresses)


HostName = Annotated[str, Host()]
Port = Annotated[int, Whole(1, _HIGHEST_PORT)]


def endpoints(bootstrap: str) -> tuple[tuple[str, int], ...]:
    """Split Kafka's addresses into hosts and ports.

    Raises
    ------
    ValueError
        If an address is not a host with a port.
    """
    found = []
    for item in bootstrap.split(","):
        host, colon, port = item.strip().rpartition(":")
        if not colon or not _PORT.fullmatch(port) or not 0 < int(port) <= _HIGHEST_PORT:
            msg = f"{item.strip()!r} has no port from 1 to {_HIGHEST_PORT}"
            raise ValueError(msg)
        if ":" in host and not host.startswith("["):
            msg = f"{item.strip()!r} needs brackets around the IPv6 address, such as [::1]:9092"
            raise ValueError(msg)
        found.append((_host(host), int(port)))
    return tuple(found)


def is_everywhere(host: str) -> bool:
    """Return whether a server with this address listens on all of them; no client can use it."""
    return host in ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address, which only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"


def url_host(host: str) -> str:
    """Write a host for a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _host(text: str) -> str:
    if "://" in text:
        msg = "a host has no scheme"
        raise ValueError(msg)
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        if "%" in bare:
            msg = "an IPv6 address must have no zone"
            raise ValueError(msg)
        return ipaddress.IPv6Address(bare).compressed
    if bare != text or not bare or len(bare) > _LONGEST_NAME:
        raise NotAllowedError
    if re.fullmatch(r"[0-9.]+", bare):
        return str(ipaddress.IPv4Address(bare))
    if not all(_LABEL.fullmatch(label) for label in bare.removesuffix(".").split(".")):
        raise NotAllowedError
    return bare
