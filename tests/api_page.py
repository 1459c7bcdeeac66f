"""The blocks of `docs/api.md`, as they stand."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def blocks_of(language: str) -> str:
    """All blocks of a language, one after the other."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert found, language
    return "\n".join(found)
