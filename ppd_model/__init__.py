"""The personalised model: Stable Cascade with a user adapter. Knows no HTTP and no database.

    from ppd_model import ImageRequest, LabelledPair, Pipeline, UserEncoder
    user = UserEncoder.load("mini").encode([LabelledPair("a boat", left, right, 0), ...])  # four
    made = Pipeline.load("mini").generate(ImageRequest("a boat", 7, user.user_emb_D))
    made.image.show()

`left` and `right` are Pillow's pictures. Importing this needs no torch; the models do.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from ppd_model.types import EncodedUser, Generated, ImageRequest, LabelledPair

if TYPE_CHECKING:
    from ppd_model.pipeline import Pipeline
    from ppd_model.user_encoder import UserEncoder

__all__ = [
    "EncodedUser",
    "Generated",
    "ImageRequest",
    "LabelledPair",
    "Pipeline",
    "UserEncoder",
    "__version__",
]
_WITH_TORCH = {"Pipeline": "ppd_model.pipeline", "UserEncoder": "ppd_model.user_encoder"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("ppd")
    if name in _WITH_TORCH:
        return getattr(import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
