"""Finds the reason why a Kafka broker does not answer, with a separate TLS handshake.

librdkafka has the same text for an unknown CA and a wrong host name, and none for a client
without TLS at a listener with TLS.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from headrace.checks.addresses import endpoints
from headrace.errors import AccessDeniedError, HeadraceError, ServerUnavailableError

__all__ = ["unanswered"]

_SECONDS = 2.0
_ANSWER_SECONDS = 0.5
#: OpenSSL's codes for a certificate with another name or IP address.
_OTHER_NAME = (62, 64)
_EXPIRED = 10
_TLS = ("SSL", "SASL_SSL")
_SASL = ("SASL_PLAINTEXT", "SASL_SSL")
#: Settings that a Connection of Airflow can have, and that this module does not try.
_NOT_TRIED = (
    "enable.ssl.certificate.verification",
    "ssl.ca.certificate.stores",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.pem",
    "ssl.keystore.location",
)


def unanswered(config: Mapping[str, Any]) -> HeadraceError | None:
    """Return the reason why the first broker refuses a client; `None` if unknown.

    Parameters
    ----------
    config
        librdkafka's settings of the client.
    """
    try:
        host, port = endpoints(config["bootstrap.servers"])[0]
    except ValueError:
        # A Connection of Airflow can have an address that only librdkafka understands.
        return None
    # librdkafka accepts lower case as well.
    protocol = str(config.get("security.protocol", "PLAINTEXT")).upper()
    at = f"Kafka at {host}:{port}"
    try:
        speaks_tls = _handshake(host, port, _trusting())
    except OSError as exc:
        return ServerUnavailableError(
            f"{at} can't be reached: {exc.strerror or exc}. Is HEADRACE_KAFKA_BOOTSTRAP right?"
        )
    if speaks_tls and protocol not in _TLS:
        return AccessDeniedError(
            f"{at} speaks TLS, and HEADRACE_KAFKA_PROTOCOL is {protocol}: set it to "
            f"{'SASL_SSL' if protocol in _SASL else 'SSL or SASL_SSL'}"
        )
    if protocol not in _TLS:
        return _login(at, protocol)
    if not speaks_tls:
        return AccessDeniedError(
            f"{at} does not speak TLS, and HEADRACE_KAFKA_PROTOCOL is {protocol}: set it to "
            f"{'SASL_PLAINTEXT' if protocol in _SASL else 'PLAINTEXT or SASL_PLAINTEXT'}, or "
            "HEADRACE_KAFKA_BOOTSTRAP to the listener with TLS"
        )
    return _verification(config, host, port, at) or _login(at, protocol)


def _verification(config: Mapping[str, Any], host: str, port: int, at: str) -> HeadraceError | None:
    """Return the problem of the broker's or of our certificate; `None` if unknown."""
    if config.keys() & set(_NOT_TRIED):
        return None
    try:
        context = ssl.create_default_context(cafile=config.get("ssl.ca.location"))
        if "ssl.certificate.location" in config:
            context.load_cert_chain(
                config["ssl.certificate.location"],
                config.get("ssl.key.location"),
                # Without a function, OpenSSL asks for the password on the terminal.
                lambda: str(config.get("ssl.key.password", "")),
            )
        _handshake(host, port, context, ask=True)
    except ssl.SSLCertVerificationError as exc:
        return AccessDeniedError(f"{at}: {_of_certificate(exc)}")
    except ssl.SSLError as exc:
        alert = exc.reason if "ALERT" in (exc.reason or "") else None
        return AccessDeniedError(f"{at} {_of_client(config, alert)}") if alert else None
    except OSError:
        return None
    return None


def _of_certificate(exc: ssl.SSLCertVerificationError) -> str:
    if exc.verify_code in _OTHER_NAME:
        return (
            f"its certificate is for another name: {exc.verify_message} Write a name that the "
            "certificate holds into HEADRACE_KAFKA_BOOTSTRAP"
        )
    if exc.verify_code == _EXPIRED:
        return "its certificate has expired: renew it"
    return (
        f"its certificate is not signed by a trusted CA ({exc.verify_message}). Set "
        "HEADRACE_KAFKA_CA_FILE to the CA that signed it"
    )


def _of_client(config: Mapping[str, Any], alert: str) -> str:
    if "ssl.certificate.location" in config:
        return (
            f"refuses the client certificate ({alert}). Is HEADRACE_KAFKA_CERT_FILE valid, and "
            "signed by a CA that the broker trusts?"
        )
    return (
        f"requires a client certificate ({alert}): set HEADRACE_KAFKA_CERT_FILE and "
        "HEADRACE_KAFKA_KEY_FILE"
    )


def _login(at: str, protocol: str) -> HeadraceError | None:
    if protocol in _SASL:
        return None
    wanted = "SASL_SSL" if protocol in _TLS else "SASL_PLAINTEXT"
    return ServerUnavailableError(
        f"{at} ends the connection of a client without a login. If this listener has SASL, set "
        f"HEADRACE_KAFKA_PROTOCOL={wanted}, and a user and a password"
    )


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _handshake(host: str, port: int, context: ssl.SSLContext, *, ask: bool = False) -> bool:
    """Perform a TLS handshake; return whether the broker uses TLS.

    Parameters
    ----------
    host, port, context
        Address of the broker and TLS context.
    ask
        Also wait for the broker's next message and raise TLS errors. With TLS 1.3, the broker
        checks our certificate after the handshake.

    Raises
    ------
    OSError
        If the broker can't be reached.
    """
    with socket.create_connection((host, port), timeout=_SECONDS) as plain:
        try:
            protected = context.wrap_socket(plain, server_hostname=host)
        except ssl.SSLError as exc:
            if ask:
                raise
            # With TLS 1.2, a broker requests a certificate in the handshake.
            return "ALERT" in (exc.reason or "")
        except OSError:
            return False
        with protected, suppress(TimeoutError):
            # A broker that accepts the client sends nothing before a request.
            if ask:
                protected.settimeout(_ANSWER_SECONDS)
                protected.recv(1)
    return True
