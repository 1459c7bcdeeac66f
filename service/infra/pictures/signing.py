"""A signed word in a picture's file that a model made it, by C2PA, beside the unsigned one.

Whoever has the certificate's issuer among those they trust can tell that the file comes from here
and that nobody has changed it.
"""

import io
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from PIL import Image

from ppd_model.pictures.origin import DIGITAL_SOURCE_TYPE, SOFTWARE, Origin
from ppd_model.pictures.writing import KINDS, Format, encoded

_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_SETTINGS = {
    "verify": {"verify_after_sign": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_TRIED = Origin(seed=0, model="none")


class Signing:
    """Puts a signed manifest into pictures' files; may be called from any thread."""

    def __init__(self, certificate: Path, key: Path, timestamp_url: str | None = None) -> None:
        """`certificate`: the signer's, then its issuers', in PEM; `key` is the signer's.

        Signs a picture to try it. Raises OSError or ValueError for what cannot sign.
        """
        chain, private = certificate.read_bytes(), key.read_bytes()
        self.not_after = x509.load_pem_x509_certificate(chain).not_valid_after_utc
        self._lock = threading.Lock()
        self._context = c2pa.Context(settings=c2pa.Settings.from_dict(_SETTINGS))
        try:
            info = c2pa.C2paSignerInfo(
                alg=_algorithm(chain, private),
                sign_cert=chain,
                private_key=private,
                ta_url=timestamp_url,
            )
            self._signer = c2pa.Signer.from_info(info)
            small = encoded(Image.new("RGB", (16, 16)), origin=_TRIED)
            signed = io.BytesIO(self.signed(small, "png", _TRIED))
            with c2pa.Reader(KINDS["png"].media_type, signed) as reader:
                state = reader.get_validation_state()
        except c2pa.C2paError as error:
            raise ValueError(f"{certificate} cannot sign pictures: {error}") from None
        if state not in ("Valid", "Trusted"):
            raise ValueError(f"{certificate} cannot sign pictures: what it signs is {state}")

    def signed(self, data: bytes, format: Format, origin: Origin) -> bytes:
        """The same file with a manifest. Raises OSError where that is not possible now."""
        signed = io.BytesIO()
        try:
            with self._lock, c2pa.Builder(_manifest(origin), context=self._context) as builder:
                builder.sign(self._signer, KINDS[format].media_type, io.BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise OSError(f"a picture could not be signed: {error}") from None
        return signed.getvalue()


def _manifest(origin: Origin) -> dict[str, Any]:
    """What is signed: who made it, that it is a model's, and the facts that the file says as well.

    The prompt stays out: it stands in the file where that was asked for.
    """
    facts = {f"{SOFTWARE}.{name}": fact for name, fact in origin.facts.items() if name != "prompt"}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": DIGITAL_SOURCE_TYPE,
        "softwareAgent": {"name": origin.model},
        "parameters": facts,
    }
    return {
        "claim_generator_info": [{"name": SOFTWARE, "version": metadata.version("ppd")}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _algorithm(chain: bytes, private: bytes) -> Any:
    """The algorithm that the key signs with; raises ValueError for none, or another's key."""
    try:
        key = load_pem_private_key(private, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the key that signs pictures must be PEM without a password") from error
    if key.public_key() != x509.load_pem_x509_certificate(chain).public_key():
        raise ValueError("the key that signs pictures is not that of the certificate")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return c2pa.C2paSigningAlg[_CURVES[key.curve.name]]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return c2pa.C2paSigningAlg.ED25519
    if isinstance(key, rsa.RSAPrivateKey):
        return c2pa.C2paSigningAlg.PS256
    raise ValueError(f"pictures cannot be signed with a key of {type(key).__name__}")
