"""Embeddings in this process, the most recently used ones."""

from collections import OrderedDict

from service.core.ports import Embedding

_FORGOTTEN = 65_536


class InProcessEmbeddingCache:
    """EmbeddingCache of at most `size` entries, keyed by profile version and encoder."""

    def __init__(self, size: int = 1024) -> None:
        self._size = size
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._entries: OrderedDict[tuple[str, str], tuple[str, Embedding]] = OrderedDict()

    async def get(self, profile_pk: str, encoder_version: str) -> Embedding | None:
        """The embedding of one profile version, if it is here."""
        entry = self._entries.get((profile_pk, encoder_version))
        if entry is None:
            return None
        self._entries.move_to_end((profile_pk, encoder_version))
        return entry[1]

    async def put(
        self, user_pk: str, profile_pk: str, encoder_version: str, user_emb_D: Embedding
    ) -> None:
        """Keep it, unless its user was forgotten."""
        if user_pk in self._forgotten:
            return
        self._entries[profile_pk, encoder_version] = (user_pk, user_emb_D)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    async def forget_user(self, user_pk: str) -> None:
        """Drop everything of one user, also what a job that still runs will put."""
        self._forgotten[user_pk] = None
        if len(self._forgotten) > _FORGOTTEN:
            self._forgotten.popitem(last=False)
        for key in [key for key, (owner, _) in self._entries.items() if owner == user_pk]:
            del self._entries[key]
