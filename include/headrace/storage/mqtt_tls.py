"""TLS for connections to the broker: client certificates and the meaning of failures."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    HeadraceError,
    ServerUnavailableError,
)

if TYPE_CHECKING:
    from headrace.storage.mqtt_address import MqttAddress

__all__ = ["client_context", "is_tls_alert", "starts_like_tls", "tls_failed"]

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_PRIVATE_KEY = "PRIVATE KEY-----"
#: First byte of a TLS record with an alert.
_ALERT = 0x15

#: OpenSSL's error codes for the verification of a certificate.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_HOST = {62, 64}

#: Alerts about the client's certificate: the end of OpenSSL's name of each, and its meaning.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it requires one",
    "HANDSHAKE_FAILURE": "it requires one, or allows no TLS version or cipher of this client",
    "UNKNOWN_CA": "it does not know the CA that signed it",
    "BAD_CERTIFICATE": "it can't use it",
    "UNSUPPORTED_CERTIFICATE": "it is of a kind that the broker does not accept",
    "CERTIFICATE_REVOKED": "it is revoked",
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_UNKNOWN": "it does not accept it",
    "ACCESS_DENIED": "it does not accept it",
    "DECRYPT_ERROR": "its signature is wrong",
}


def client_context(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None
) -> ssl.SSLContext:
    """Create the TLS context of a client that checks the broker's certificate and host name.

    Parameters
    ----------
    ca_file
        CA certificates; the system's if `None`.
    cert_file, key_file
        The client's certificate, with intermediate ones, and its private key.

    Raises
    ------
    ConfigurationError
        If a file can't be read or used; the message names the setting.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(str(ca_file))
        except OSError as exc:
            msg = f"HEADRACE_MQTT_CA_FILE: {ca_file} holds no CA certificate: {exc}"
            raise ConfigurationError(msg) from exc
    if cert_file is not None and key_file is not None:
        _load_certificate(context, cert_file, key_file)
    return context


def tls_failed(address: MqttAddress, exc: Exception) -> HeadraceError | None:
    """Return the error for a failed TLS connection; `None` if TLS is not the reason."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        # A retry does not help with a wrong certificate.
        return AccessDeniedError(_not_verified(address, exc))
    if is_tls_alert(exc):
        return _alerted(address, str(getattr(exc, "reason", "")))
    broken = isinstance(exc, ssl.SSLError | ConnectionResetError | BrokenPipeError)
    if not address.tls or not broken or isinstance(exc, ssl.SSLZeroReturnError):
        return None
    return ServerUnavailableError(
        f"the MQTT broker at {address} does not answer in TLS: {exc}. If HEADRACE_MQTT_PORT "
        f"{address.port} is its port without TLS, set HEADRACE_MQTT_PORT to the one with TLS "
        "(often 8883), or HEADRACE_MQTT_TLS=false"
    )


def is_tls_alert(exc: Exception) -> bool:
    """Return whether an error is a TLS alert, with which the broker ended the connection."""
    return isinstance(exc, ssl.SSLError) and "_ALERT_" in str(exc.reason)


def starts_like_tls(first_byte: int | None) -> bool:
    """Return whether an answer is a TLS alert, which shows that the broker requires TLS."""
    return first_byte == _ALERT


def _not_verified(address: MqttAddress, exc: ssl.SSLCertVerificationError) -> str:
    text = f"the certificate of the MQTT broker at {address}"
    code = exc.verify_code
    if code in _OTHER_HOST:
        return (
            f"{text} is not for {address.host!r}. Set HEADRACE_MQTT_HOST to a name or address that "
            "the certificate holds, or give the broker a certificate that holds this one"
        )
    if code == _EXPIRED:
        return f"{text} has expired. Renew it at the broker, and check the clock of this machine"
    if code == _NOT_YET_VALID:
        return f"{text} is not valid yet. Check the clocks of this machine and of the issuer"
    signed_by = "the system's CAs" if address.ca_file is None else str(address.ca_file)
    return (
        f"{text} is not signed by {signed_by}: {exc.verify_message}. Set HEADRACE_MQTT_CA_FILE to "
        "the certificate of the CA that signed it"
    )


def _alerted(address: MqttAddress, reason: str) -> HeadraceError:
    alert = reason.rpartition("_ALERT_")[2]
    meaning = _ALERTS.get(alert)
    if meaning is None:
        return ServerUnavailableError(
            f"the MQTT broker at {address} ends the TLS connection: "
            f"{alert.lower().replace('_', ' ')}. Check the TLS versions and ciphers it allows"
        )
    if address.cert_file is None:
        return AccessDeniedError(
            f"the MQTT broker at {address} refuses a client without a certificate: {meaning}. Set "
            "HEADRACE_MQTT_CERT_FILE and HEADRACE_MQTT_KEY_FILE to one that it accepts"
        )
    return AccessDeniedError(
        f"the MQTT broker at {address} refuses the client certificate {address.cert_file}: "
        f"{meaning}. Set HEADRACE_MQTT_CERT_FILE and HEADRACE_MQTT_KEY_FILE to a valid one that is "
        "signed by a CA the broker knows"
    )


def _load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    _check_pem("HEADRACE_MQTT_CERT_FILE", cert_file, _CERTIFICATE, "certificate")
    _check_pem("HEADRACE_MQTT_KEY_FILE", key_file, _PRIVATE_KEY, "private key")
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except _EncryptedKeyError as exc:
        msg = (
            f"HEADRACE_MQTT_KEY_FILE: the key in {key_file} is encrypted, and the bridge can't "
            "ask for its password. Write the key without one: openssl pkey -in KEY -out NEW_KEY"
        )
        raise ConfigurationError(msg) from exc
    except ssl.SSLError as exc:
        if "MISMATCH" in str(exc.reason):
            msg = (
                f"HEADRACE_MQTT_KEY_FILE: the key in {key_file} does not belong to the certificate "
                f"in {cert_file} (HEADRACE_MQTT_CERT_FILE). Set both to files of one certificate"
            )
        else:
            msg = (
                f"HEADRACE_MQTT_CERT_FILE, HEADRACE_MQTT_KEY_FILE: {cert_file} and {key_file} "
                f"can't be used: {exc}. Write certificate and key as PEM"
            )
        raise ConfigurationError(msg) from exc


def _check_pem(setting: str, path: Path, wanted: str, what: str) -> None:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as exc:
        msg = f"{setting}: {path} can't be read: {exc.strerror}"
        raise ConfigurationError(msg) from exc
    if wanted not in text:
        msg = f"{setting}: {path} holds no {what} in PEM (a line {wanted!r})"
        raise ConfigurationError(msg)


class _EncryptedKeyError(Exception):
    """A key needs a password."""


def _no_password() -> str:
    raise _EncryptedKeyError
