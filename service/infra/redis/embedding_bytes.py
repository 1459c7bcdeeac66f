"""A taste as bytes that another process can check: safetensors, with the words in its metadata."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ppd_model.types import Embedding, EncodedUser

MAX_BYTES = 2**20
_TENSOR = "user_emb_D"
_MAX_DIM = 65_536


def to_bytes(name: str, taste: EncodedUser) -> bytes:
    """The taste under this name; the name and a hash over everything travel with it."""
    emb_D = np.ascontiguousarray(taste.user_emb_D, dtype="<f4")
    words = {
        "name": name,
        "text": taste.profile,
        "likes": json.dumps(taste.likes),
        "dislikes": json.dumps(taste.dislikes),
        "confidence": repr(float(taste.confidence)),
    }
    return save({_TENSOR: emb_D}, {**words, "sha256": _digest(words, emb_D)})


def from_bytes(name: str, data: bytes) -> EncodedUser:
    """The taste that was kept under this name; raises ValueError for anything else."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes or more; expected {MAX_BYTES} at most")
    try:
        tensors = load(data)
        words = _metadata(data)
    except (SafetensorError, KeyError, RecursionError) as error:
        raise ValueError("not safetensors") from error
    if set(tensors) != {_TENSOR}:
        raise ValueError(f"tensors {sorted(tensors)}; expected {_TENSOR}")
    emb_D = tensors[_TENSOR]
    if emb_D.dtype != np.float32 or emb_D.ndim != 1 or not 0 < emb_D.size <= _MAX_DIM:
        raise ValueError(f"{emb_D.dtype} of shape {emb_D.shape}; expected float32 of shape (D,)")
    told = words.pop("sha256", None)
    if words.get("name") != name or told != _digest(words, emb_D):
        raise ValueError("kept under another name, or damaged")
    return _checked(words, emb_D)


def _checked(words: Mapping[str, str], emb_D: Embedding) -> EncodedUser:
    norm = float(np.linalg.norm(emb_D.astype(np.float64)))
    if not math.isfinite(norm) or norm == 0:
        raise ValueError(f"an embedding of norm {norm}")
    try:
        text, confidence = words["text"], float(words["confidence"])
        likes, dislikes = _strings(words["likes"]), _strings(words["dislikes"])
    except KeyError as error:
        raise ValueError(f"no {error} in the metadata") from error
    if not text.strip() or not math.isfinite(confidence):
        raise ValueError("no text, or a confidence that is no number")
    return EncodedUser(text, "", emb_D, confidence, likes, dislikes)


def _metadata(data: bytes) -> dict[str, str]:
    """What `safetensors.numpy` leaves out: the strings of the header, which it has checked."""
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length]).get("__metadata__") or {})


def _strings(text: str) -> list[str]:
    read: Any = json.loads(text)
    if not isinstance(read, list) or not all(isinstance(one, str) for one in read):
        raise ValueError("expected a list of strings")
    return read


def _digest(words: Mapping[str, str], emb_D: Embedding) -> str:
    hashed = hashlib.sha256(json.dumps(dict(words), sort_keys=True).encode())
    hashed.update(emb_D.tobytes())
    return hashed.hexdigest()
