"""Which of several forms a client's Accept header asks for (RFC 9110, 12.5.1)."""

from collections.abc import Sequence


def chosen(accept: str, offers: Sequence[str]) -> str:
    """One of these media types: the best liked, of equals the first.

    A header that accepts none of them, or cannot be read, is passed over, as HTTP allows: clients
    that say `application/json` of every request still get their picture.
    """
    ranges = [_range(part) for part in accept.lower().split(",") if part.strip()]
    liked = [_weight(offer, ranges) for offer in offers]
    return offers[liked.index(max(liked))]


def _range(part: str) -> tuple[str, float]:
    """A range of media types and its weight."""
    media_range, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media_range, float(value)
            except ValueError:
                return media_range, 0.0
    return media_range, 1.0


def _weight(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """By the narrowest range that the type lies in; 0 where it lies in none."""
    weights = dict(ranges)
    for media_range in (offer, offer.partition("/")[0] + "/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0
