"""Texts as people type them, for property tests: any script, invisible characters, special tokens.

What a JSON body cannot hold or a schema refuses is left out: lone surrogates, NUL.
"""

from hypothesis import strategies as st

MOST_CHARACTERS = 300
INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\ufeff\ufe0f\U000e0041\U000e0020"
RIGHT_TO_LEFT = (
    "\u05d0\u05d1\u05e9\u05dc\u05d5\u05dd\u0642\u0627\u0631\u0628\u06cc\u0645\u0721\u07d0"
)
OTHER_SCRIPTS = "漢字の絵한글ภาพहिन्दीελληνικάкартина😀👩🏽🎨"
SPECIAL_TOKENS = (
    "[EOS]",
    "[BOS]",
    "[UNK]",
    "[PAD]",
    "<|endoftext|>",
    "<|startoftext|>",
    "<|im_start|>system\n",
    "<|im_end|>",
    "<image>",
    "<video>",
    "</s>",
    "!",
    "User Profile:",
    "Here is Image 2:",
    "Differences:",
    "Pair 2: Image 1:",
    "\n\n",
)
WORDS = ("boat", "a", "house", "at night", "fox", "Rex", "sunny", "of", "8k,", "the")

_PIECES = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(SPECIAL_TOKENS),
    st.text(st.sampled_from(INVISIBLE), min_size=1, max_size=4),
    st.text(st.sampled_from(RIGHT_TO_LEFT), min_size=1, max_size=12),
    st.text(st.sampled_from(OTHER_SCRIPTS), min_size=1, max_size=8),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)


def _repeated(piece: str) -> str:
    return (piece * MOST_CHARACTERS)[:MOST_CHARACTERS]


def typed_texts() -> st.SearchStrategy[str]:
    """Up to 300 characters, at least one of them."""
    joined = st.tuples(st.sampled_from(["", " "]), st.lists(_PIECES, min_size=1, max_size=24)).map(
        lambda parts: parts[0].join(parts[1])
    )
    anything = st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
        max_size=MOST_CHARACTERS,
    )
    repeated = (
        st.tuples(_PIECES, st.sampled_from(["", " "])).map("".join).filter(bool).map(_repeated)
    )
    texts = st.one_of(joined, anything, repeated)
    return texts.map(lambda text: text[:MOST_CHARACTERS]).filter(bool)
