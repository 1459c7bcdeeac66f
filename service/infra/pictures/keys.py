"""Keys of the image store: whose a picture is and what it holds, so no two share one."""

import re

from ppd_model.pictures.writing import KINDS, Format

_FORMATS: dict[str, Format] = {kind.suffix: format for format, kind in KINDS.items()}
_PICTURE = "|".join(suffix.removeprefix(".") for suffix in _FORMATS)
_KEY = re.compile(rf"[a-z0-9]+(/[a-z0-9-]+)*\.({_PICTURE}|safetensors|id)")


def generated_key(job_id: str, attempt: int, position: int, sha256: str, format: Format) -> str:
    """A picture that a job made. A late attempt deletes its own and never the winner's."""
    return f"{job_id}/{attempt}-{position}-{sha256}{KINDS[format].suffix}"


def upload_key(user_pk: str, image_id: str, sha256: str) -> str:
    return f"uploads/{user_pk}/{image_id}-{sha256}{KINDS['png'].suffix}"


def check_key(key: str) -> str:
    """The key, if it can be one: it leads nowhere but down. Raises ValueError."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a key of the image store")
    return key


def is_picture(key: str) -> bool:
    """Whether a picture's row may point to it; what else lies in the store is not swept."""
    return _KEY.fullmatch(key) is not None and f".{key.rpartition('.')[2]}" in _FORMATS


def format_of(key: str) -> Format:
    """The format of the picture that has this key."""
    return _FORMATS[f".{key.rpartition('.')[2]}"]
