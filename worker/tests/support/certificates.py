"""An authority of our own, and servers that it vouches for."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Authority:
    """A root certificate with its key, in a directory that holds all that it issues."""

    directory: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, directory: Path) -> Authority:
        """Make a new one, valid for a day."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        signs_only = x509.BasicConstraints(ca=True, path_length=0)
        certificate = (
            _draft(name, name, key)
            .add_extension(signs_only, critical=True)
            .sign(key, hashes.SHA256())
        )
        made = cls(directory=directory, certificate=certificate, key=key)
        made.root.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return made

    @property
    def root(self) -> Path:
        """The root certificate's file."""
        return self.directory / "root.pem"

    def issue(self, *hosts: str) -> tuple[Path, Path]:
        """Make a certificate for names and addresses; return its file and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        certificate = (
            _draft(subject, self.certificate.subject, key)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        files = self.directory / f"{hosts[0]}.pem", self.directory / f"{hosts[0]}.key"
        files[0].write_bytes(certificate.public_bytes(pem))
        files[1].write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return files

    def server_context(self, *hosts: str) -> ssl.SSLContext:
        """TLS for a server of these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(*hosts))
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS for a client that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.root))


def _draft(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
