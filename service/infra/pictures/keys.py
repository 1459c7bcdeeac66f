"""Keys of the image store: whose a picture is and what it holds, so no two share one."""

import re

_KEY = re.compile(r"[a-z0-9]+(/[a-z0-9-]+)*\.(png|safetensors)")
_PICTURE = ".png"


def generated_key(job_id: str, attempt: int, position: int, sha256: str) -> str:
    """A picture that a job made. A late attempt deletes its own and never the winner's."""
    return f"{job_id}/{attempt}-{position}-{sha256}{_PICTURE}"


def upload_key(user_pk: str, image_id: str, sha256: str) -> str:
    return f"uploads/{user_pk}/{image_id}-{sha256}{_PICTURE}"


def check_key(key: str) -> str:
    """The key, if it can be one: it leads nowhere but down. Raises ValueError."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a key of the image store")
    return key


def is_picture(key: str) -> bool:
    """Whether a picture's row may point to it; what else lies in the store is not swept."""
    return key.endswith(_PICTURE) and _KEY.fullmatch(key) is not None
