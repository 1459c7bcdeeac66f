"""Captions that are the same one or an edit of it, put together, so that none of them leaks.

People type a caption, look, and change a word. A test on one version says little where another
version was trained on, so all of them count as one: a family. Two captions are near when they have
the same words in the same order; and, of one person, when

- the words that both have are at least `near_caption` of the words that either has (Jaccard), or
- one begins with all words of the other, three at least ("a cat at sea", "a cat at sea, oil").

Families are closed under both, over people too: who types a caption that somebody else edited is in
that family. Captions of different people that only resemble each other are not compared.

Dimension letters: K captions, F families, W words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

IntArray = NDArray[np.int64]

LEAST_PREFIX = 3
"""Words that a caption needs for what continues it to be its edit: "a cat" begins too much."""
ROWS_AT_ONCE = 1024
"""Captions of a person that are compared with all their others at a time."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Families:
    """family_K: of each caption. key_F: each family's name, which follows from its captions."""

    family_K: IntArray
    key_F: list[str]


def normal(caption: str) -> str:
    """A caption without letter case, punctuation and white space."""
    return " ".join(_WORD.findall(caption.casefold())) or " ".join(caption.casefold().split())


def families(
    captions: Sequence[str], typed_by: Iterable[IntArray], near_caption: float
) -> Families:
    """The families of these captions; typed_by: the captions of each person, each once."""
    words_K = [normal(caption).split() for caption in captions]
    word_ids: dict[str, int] = {}
    ids_K = [[word_ids.setdefault(word, len(word_ids)) for word in set(words)] for words in words_K]
    texts = [" ".join(words) for words in words_K]
    edges = [np.stack([np.arange(len(texts)), _first_of_equals(texts)])]
    for own_K in typed_by:
        if len(own_K) > 1:
            edges.append(own_K[_by_words([ids_K[k] for k in own_K.tolist()], near_caption)])
            edges.append(own_K[_by_beginning([words_K[k] for k in own_K.tolist()])])
    first_J, second_J = np.concatenate(edges, axis=1)
    graph = sparse.coo_array((np.ones(len(first_J), bool), (first_J, second_J)), (len(texts),) * 2)
    count, label_K = sparse.csgraph.connected_components(graph, directed=False)
    keys: list[str] = [""] * count
    for text, label in sorted(zip(texts, label_K.tolist(), strict=True), reverse=True):
        keys[label] = text
    return Families(label_K.astype(np.int64), keys)


def _first_of_equals(texts: Sequence[str]) -> IntArray:
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, place) for place, text in enumerate(texts)], np.int64)


def _by_words(ids_K: Sequence[list[int]], near_caption: float) -> IntArray:
    """Pairs of captions with most of their words in common, 2 x J."""
    sizes_K = np.array([len(ids) for ids in ids_K])
    words, column = np.unique(np.concatenate(ids_K), return_inverse=True)
    begin_K = np.concatenate([[0], np.cumsum(sizes_K)])
    has_KW = sparse.csr_array(
        (np.ones(len(column), np.int32), column, begin_K), (len(ids_K), len(words))
    )
    found = []
    for first in range(0, len(ids_K), ROWS_AT_ONCE):
        common = (has_KW[first : first + ROWS_AT_ONCE] @ has_KW.T).tocoo()
        row, other = common.row + first, common.col
        near = (row < other) & (
            common.data >= near_caption * (sizes_K[row] + sizes_K[other] - common.data)
        )
        found.append(np.stack([row[near], other[near]]))
    return np.concatenate(found, axis=1).astype(np.int64)


def _by_beginning(words_K: Sequence[list[str]]) -> IntArray:
    """Each caption that begins with another's words, beside the longest such other, 2 x J."""
    return np.array(list(_continued(words_K)), np.int64).reshape(-1, 2).T


def _continued(words_K: Sequence[list[str]]) -> Iterator[tuple[int, int]]:
    open_ones: list[int] = []
    for place in sorted(range(len(words_K)), key=lambda k: words_K[k]):
        words = words_K[place]
        while open_ones and words[: len(words_K[open_ones[-1]])] != words_K[open_ones[-1]]:
            open_ones.pop()
        if open_ones:
            yield open_ones[-1], place
        if len(words) >= LEAST_PREFIX:
            open_ones.append(place)
