"""A taste as bytes that another process can check: a hash, then JSON."""

import hashlib
import math

import numpy as np
from pydantic import Base64Bytes, BaseModel, ConfigDict

from ppd_model.types import EncodedUser
from service.core import embeddings

MAX_BYTES = 2**20
_DIGEST_BYTES = hashlib.sha256().digest_size


class _Kept(BaseModel):
    """`embedding_base64`: little-endian float32."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    text: str
    likes: list[str]
    dislikes: list[str]
    unread: list[str]
    confidence: float
    embedding_base64: Base64Bytes


def to_bytes(name: str, taste: EncodedUser) -> bytes:
    """The taste under this name, which counts in the hash over everything."""
    body = _Kept.model_construct(
        text=taste.profile,
        likes=taste.likes,
        dislikes=taste.dislikes,
        unread=taste.unread,
        confidence=float(taste.confidence),
        embedding_base64=embeddings.to_bytes(taste.user_emb_D),
    ).model_dump_json()
    return _digest(name, body.encode()) + body.encode()


def from_bytes(name: str, data: bytes) -> EncodedUser:
    """The taste that was kept under this name; raises ValueError for anything else."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes or more; expected {MAX_BYTES} at most")
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if digest != _digest(name, body):
        raise ValueError("kept under another name, or damaged")
    kept = _Kept.model_validate_json(body)
    emb_D = embeddings.from_bytes(kept.embedding_base64)
    norm = float(np.linalg.norm(emb_D.astype(np.float64)))
    if not math.isfinite(norm) or norm == 0:
        raise ValueError(f"an embedding of norm {norm}")
    return EncodedUser(
        kept.text, "", emb_D, kept.confidence, kept.likes, kept.dislikes, kept.unread
    )


def _digest(name: str, body: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + body).digest()
