"""A certificate authority and certificates for the tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from native.servers import LOOPBACK

__all__ = ["Authority"]


class Authority:
    """A certificate authority.

    Parameters
    ----------
    folder
        Folder of its files; ``<name>.pem`` is the CA certificate.
    name
        Name of the CA. CAs with different names do not trust each other.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._folder = folder
        certificate = self._sign(self._name, self._key.public_key(), host=None)
        self.ca_file = folder / f"{name}.pem"
        self.ca_file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        host: str = LOOPBACK,
        *,
        starts: timedelta = timedelta(hours=-1),
        ends: timedelta = timedelta(days=1),
    ) -> tuple[Path, Path]:
        """Sign a certificate for one address or name, for a server or a client.

        Parameters
        ----------
        name
            Name of the files and of the owner.
        host
            Address or name in the certificate.
        starts, ends
            Start and end of its validity, relative to now.

        Returns
        -------
        tuple of Path
            Files of the certificate and of its key, which servers of any user can read.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        valid = (starts, ends)
        certificate = self._sign(_named(name), key.public_key(), host=host, valid=valid)
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        host: str | None,
        valid: tuple[timedelta, timedelta] = (-timedelta(hours=1), timedelta(days=1)),
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        authority = host is None
        use = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=authority,
            crl_sign=authority,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + valid[0])
            .not_valid_after(now + valid[1])
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(use, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if host is not None:
            uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            address = x509.SubjectAlternativeName([_address(host)])
            builder = builder.add_extension(address, critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"headrace test {name}")])


def _address(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
