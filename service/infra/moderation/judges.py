"""All who judge content here, one after the other; with none everything is allowed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.core.ports import ModeratedPlace, Moderation, RefusalReason


@dataclass(frozen=True)
class Judges:
    """Each is asked until one refuses. `places`: where they are asked at all."""

    judges: Sequence[Moderation] = ()
    places: frozenset[ModeratedPlace] = field(default_factory=frozenset)

    def look_at(self, place: ModeratedPlace) -> bool:
        return bool(self.judges) and place in self.places

    async def refuse_text(self, place: ModeratedPlace, text: str) -> RefusalReason | None:
        """Why a text is refused there; raises OSError where nobody can tell."""
        if not self.look_at(place):
            return None
        for judge in self.judges:
            reason = await judge.refuses_text(text)
            if reason is not None:
                return reason
        return None

    async def refuse_picture(
        self, place: ModeratedPlace, data: bytes, media_type: str
    ) -> RefusalReason | None:
        """The same of a picture's file."""
        if not self.look_at(place):
            return None
        for judge in self.judges:
            reason = await judge.refuses_picture(data, media_type)
            if reason is not None:
                return reason
        return None
