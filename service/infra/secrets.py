"""Keys and secrets: made here, kept as hashes or as files that only their owner reads."""

import base64
import hashlib
import os
import secrets
from pathlib import Path

KEY_PREFIX = "ppd_"


def new_key() -> str:
    """A key of 256 random bits."""
    return KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


def key_sha256(key: str) -> str:
    """What is stored of a key. A random key of 256 bits needs no slow hash."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def write_private(path: Path, text: str) -> None:
    """Write a new file with mode 0600; raises FileExistsError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def session_secret(data_dir: Path) -> str:
    """The secret that signs browser sessions; made on the first start."""
    path = data_dir / "session-secret"
    if not path.exists():
        write_private(path, secrets.token_hex(32) + "\n")
    secret = path.read_text(encoding="utf-8").strip()
    if len(secret) != 64:
        raise ValueError(f"{path} does not hold a session secret; remove it to sign everybody out")
    return secret
