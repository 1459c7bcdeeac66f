"""How places are shared between owners who do not know of each other."""


def share(limit: int, taken: int, cap: int) -> int:
    """How many of `limit` places one owner may hold while `taken` of them are held.

    As many as are still free, `cap` at most, and always one: a single greedy owner gets half of all
    places, two get a third each, n get 1/(n + 1) each, so that a few never leave nothing to others.
    """
    return min(cap, max(1, limit - taken))
