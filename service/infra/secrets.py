"""Keys and secrets: made here, kept as hashes or as files that only their owner reads."""

import base64
import hashlib
import hmac
import re
import secrets
from pathlib import Path

from service.infra.whole_files import write_whole

KEY_PREFIX = "ppd_"
_KEY = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]{43}")


def new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def key_sha256(key: str) -> str:
    """What is stored of a key. A random key of 256 bits needs no slow hash."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def share_code(secret: str, share_id: str) -> str:
    """The code of a shared taste: 130 bits that nobody guesses, the same again from both."""
    digest = hmac.digest(secret.encode(), f"share {share_id}".encode(), "sha256")
    return base64.b32encode(digest)[:26].decode().lower()


def first_key(path: Path) -> str:
    """The key that the first start writes to `path`: the one that is there, else made and written.

    So a start that was lost after it wrote the key and before it stored the hash is taken up.
    """
    held = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if _KEY.fullmatch(held):
        return held
    key = new_key()
    write_whole(path, f"{key}\n".encode())
    return key


def session_secret(data_dir: Path) -> str:
    """The secret that signs browser sessions; made on the first start."""
    path = data_dir / "session-secret"
    if not path.exists():
        write_whole(path, f"{secrets.token_hex(32)}\n".encode())
    secret = path.read_text(encoding="utf-8").strip()
    if len(secret) != 64:
        raise ValueError(f"{path} does not hold a session secret; remove it to sign everybody out")
    return secret
