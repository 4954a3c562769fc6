"""The installation's certificate authority and its server certificate."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headrace.checks.addresses import Host, is_everywhere
from headrace.checks.values import NotAllowedError
from headrace.errors import ConfigurationError

__all__ = ["Authority", "certificate_names", "names_of", "write_file"]

_CA_LIFETIME = timedelta(days=3650)
#: Certificates start this long before now, because clocks of devices may be slow.
_BEFORE = timedelta(days=1)
#: Maximum length of a common name.
_LONGEST_COMMON_NAME = 64


def certificate_names(given: Iterable[str]) -> tuple[str, ...]:
    """Check host names and IP addresses for a certificate.

    Raises
    ------
    ConfigurationError
        If one is not a host name or IP address, or is an address that no client can use.
    """
    check = Host()
    names = []
    for name in given:
        try:
            host = check.read(name)
        except NotAllowedError:
            msg = f"{name!r} can't be in a certificate. Write {check.allowed}"
            raise ConfigurationError(msg) from None
        except ValueError as exc:
            msg = f"{name!r} can't be in a certificate ({exc}). Write {check.allowed}"
            raise ConfigurationError(msg) from exc
        if is_everywhere(host):
            msg = (
                f"{name!r} can't be in a certificate: servers listen on it, and no client connects "
                "to it. Write the host name or IP address that clients use"
            )
            raise ConfigurationError(msg)
        names.append(host)
    return tuple(dict.fromkeys(names))


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the host names and IP addresses of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*hosts, *(str(address) for address in addresses))


class Authority:
    """The certificate authority (CA) in a folder, created if it does not exist.

    Parameters
    ----------
    folder
        Folder of ``ca.crt``, ``ca.key`` and issued certificates.
    now
        The current time.

    Raises
    ------
    ConfigurationError
        If its files can't be read, or if it expires soon.
    """

    def __init__(self, folder: Path, now: datetime) -> None:
        self._folder = folder
        self._now = now
        self.certificate_file = folder / "ca.crt"
        self._key_file = folder / "ca.key"
        self.is_new = not self.certificate_file.exists()
        if self.is_new:
            self._make()
        self._certificate, self._key = self._load()
        if self._certificate.not_valid_after_utc - now < timedelta(days=1):
            msg = (
                f"the CA in {self.certificate_file} expires on "
                f"{self._certificate.not_valid_after_utc:%Y-%m-%d}. Remove that file, run this "
                "command again, and copy the new ca.crt to all devices and consumers"
            )
            raise ConfigurationError(msg)

    def issue(self, names: Sequence[str], lifetime: timedelta) -> datetime:
        """Write a new server certificate, ``server.crt`` and ``server.key``.

        Returns
        -------
        datetime
            Expiry of the certificate, never later than that of the CA.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        expires = min(self._now + lifetime, self._certificate.not_valid_after_utc)
        builder = _builder(_named(names[0][:_LONGEST_COMMON_NAME]), key, self._now, expires)
        certificate = (
            builder.issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_use(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        write_file(self._folder / "server.key", _pem(key), 0o600)
        write_file(self._folder / "server.crt", certificate.public_bytes(Encoding.PEM), 0o644)
        return expires

    def _make(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o755)
        key = ec.generate_private_key(ec.SECP256R1())
        # Clients distinguish CAs by name.
        name = _named(f"Headrace CA {secrets.token_hex(4)}")
        certificate = (
            _builder(name, key, self._now, self._now + _CA_LIFETIME)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_use(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_file(self._key_file, _pem(key), 0o600)
        write_file(self.certificate_file, certificate.public_bytes(Encoding.PEM), 0o644)

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
            key = load_pem_private_key(self._key_file.read_bytes(), password=None)
        except OSError as exc:
            msg = f"{exc.filename} can't be read: {exc.strerror}"
            raise ConfigurationError(msg) from exc
        except (ValueError, TypeError) as exc:
            msg = (
                f"the CA in {self._folder} can't be read: {exc}. Remove ca.crt there to make a "
                "new one; all devices and consumers then need the new ca.crt"
            )
            raise ConfigurationError(msg) from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey) or (
            key.public_key() != certificate.public_key()
        ):
            msg = f"{self._key_file} is not the key of {self.certificate_file}"
            raise ConfigurationError(msg)
        return certificate, key


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, expires: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _use(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file atomically, with this mode from the start."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        # Independent of the umask, because servers of other users read the certificates.
        os.fchmod(file.fileno(), mode)
        file.write(content)
    partial.replace(path)
