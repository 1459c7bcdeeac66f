"""A certificate to sign pictures with, and its issuer's, made for a test."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def certificate_and_key(folder: Path, days: int = 90) -> dict[str, Path]:
    """Both as settings; the chain leads to an issuer whom nobody trusts."""
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = [
        _certificate("Test Signer", leaf, root, days, is_issuer=False),
        _certificate("Test Root", root, root, days, is_issuer=True),
    ]
    certificate, key = folder / "chain.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    key.write_bytes(leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"c2pa_certificate": certificate, "c2pa_key": key}


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    is_issuer: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    unused = dict.fromkeys(
        (
            "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    usage = x509.KeyUsage(
        digital_signature=not is_issuer, key_cert_sign=is_issuer, crl_sign=is_issuer, **unused
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("Test Root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_issuer, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
        )
    )
    if not is_issuer:
        signs = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(signs, critical=False)
    return builder.sign(issuer, hashes.SHA256())


def _named(name: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test")
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, name)])
