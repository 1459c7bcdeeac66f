"""An embedding as bytes, wherever one is kept: little-endian float32."""

import numpy as np

from ppd_model.types import Embedding


def to_bytes(user_emb_D: Embedding) -> bytes:
    return user_emb_D.astype("<f4").tobytes()


def from_bytes(data: bytes) -> Embedding:
    return np.frombuffer(data, dtype="<f4").astype(np.float32)
