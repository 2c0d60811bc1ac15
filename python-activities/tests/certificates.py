"""Certificates that a test makes for itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Pair:
    """A certificate with its key, also as files."""

    def __init__(
        self,
        folder: Path,
        name: str,
        by: Pair | None = None,
        *,
        host: str = "localhost",
        days: int = 2,
    ) -> None:
        """Make one: an authority, or signed ``by`` one; ``days`` below 0 for an expired one."""
        self.key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = (by.certificate.subject, by.key) if by else (subject, self.key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=5))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        )
        self.certificate = builder.sign(signer, hashes.SHA256())
        self.cert_file = folder / f"{name}.pem"
        self.key_file = folder / f"{name}.key"
        self.cert_pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.key_pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.cert_file.write_bytes(self.cert_pem)
        self.key_file.write_bytes(self.key_pem)
