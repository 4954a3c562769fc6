"""The certificate of the bundled servers for clients on other machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from headrace.certificates.authority import names_of
from headrace.errors import ConfigurationError
from headrace.outside import outside_addresses
from headrace.settings import Settings

__all__ = ["EXPIRY_NOTICE", "ServerCertificate", "certificate_state", "server_certificate"]

#: Time before its expiry at which `headrace status` reports a certificate.
EXPIRY_NOTICE = timedelta(days=30)
_RENEW = "Next: run `headrace certificate`, then `make up` (docs/devices-from-outside.md)"
_RENEW_OWN = "Next: replace the files in HEADRACE_SERVER_CERT_FILE and HEADRACE_SERVER_KEY_FILE"


@dataclass(frozen=True)
class ServerCertificate:
    """A checked certificate with its key.

    Parameters
    ----------
    file
        File of the certificate.
    chain
        The certificate and its intermediate certificates, as PEM.
    key
        Key of the certificate, as unencrypted PKCS#8 in PEM, which all servers can read.
    names
        Host names and IP addresses of the certificate.
    expires
        Expiry of the certificate.
    """

    file: Path
    chain: bytes
    key: bytes
    names: tuple[str, ...]
    expires: datetime

    def __repr__(self) -> str:
        return f"ServerCertificate({str(self.file)!r})"


def server_certificate(settings: Settings) -> ServerCertificate:
    """Read the certificate of the bundled servers, from the settings or the state folder.

    Raises
    ------
    ConfigurationError
        If there is none, or if certificate or key is unusable. The message names the file.
    """
    if settings.server_cert_file and settings.server_key_file:
        return _read(settings.server_cert_file, settings.server_key_file)
    folder = settings.certificates_dir
    if not (folder / "server.crt").exists():
        opened = " and ".join(outside_addresses(settings)) or "access from other machines"
        msg = (
            f"{opened} requires a certificate, and there is none in {folder}. Make one with "
            "`headrace certificate NAME`, where NAME is the host name or IP address that clients "
            "use, or set HEADRACE_SERVER_CERT_FILE and HEADRACE_SERVER_KEY_FILE to your own"
        )
        raise ConfigurationError(msg)
    return _read(folder / "server.crt", folder / "server.key")


def certificate_state(settings: Settings, now: datetime) -> tuple[str | None, str | None]:
    """Return current and coming problems of the certificate.

    Returns
    -------
    tuple
        A problem and a notice, each with the next step or `None`.
    """
    if not outside_addresses(settings):
        return None, None
    try:
        certificate = server_certificate(settings)
    except ConfigurationError as exc:
        return str(exc), None
    left = certificate.expires - now
    renew = _RENEW_OWN if settings.server_cert_file else _RENEW
    if left <= timedelta(0):
        problem = (
            f"the certificate in {certificate.file} expired on {certificate.expires:%Y-%m-%d}: "
            f"devices and consumers on other machines can't connect. {renew}"
        )
        return problem, None
    if left < EXPIRY_NOTICE:
        return None, (
            f"the certificate in {certificate.file} expires in {left.days} days, on "
            f"{certificate.expires:%Y-%m-%d}. {renew}"
        )
    return None, None


def _read(cert_file: Path, key_file: Path) -> ServerCertificate:
    try:
        chain = x509.load_pem_x509_certificates(cert_file.read_bytes())
    except OSError as exc:
        raise ConfigurationError(_unreadable(cert_file, exc)) from exc
    except ValueError as exc:
        msg = f"{cert_file} holds no certificate in PEM: {exc}"
        raise ConfigurationError(msg) from exc
    try:
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except OSError as exc:
        raise ConfigurationError(_unreadable(key_file, exc)) from exc
    except TypeError as exc:
        msg = (
            f"the key in {key_file} has a password, for which servers can't ask. Remove it with "
            f"`openssl pkey -in {key_file} -out NEW_FILE`"
        )
        raise ConfigurationError(msg) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        msg = f"{key_file} holds no key in PEM"
        raise ConfigurationError(msg) from exc
    leaf = chain[0]
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
        msg = (
            f"the key in {key_file} does not belong to the first certificate in {cert_file}. "
            "Put the server's own certificate first, and those of its CAs after it"
        )
        raise ConfigurationError(msg)
    return ServerCertificate(
        cert_file,
        b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        names_of(leaf),
        leaf.not_valid_after_utc,
    )


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} can't be read: {error.strerror}"
