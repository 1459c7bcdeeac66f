"""An operator's list of words: whole words, however they are written."""

from pathlib import Path

import pytest

from service.infra.moderation.judges import Judges
from service.infra.moderation.word_list import WordList

pytestmark = pytest.mark.anyio

LIST = "Grape # sour\n\n[violence]\nblood bath\nna\u00efve\n[sexual]\n裸体\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a GRAPE, please", "other"),
        ("g\u200brape", "other"),
        ("ｇｒａｐｅ", "other"),
        ("grapes", None),
        ("blood\n  BATH", "violence"),
        ("blood_bath", "violence"),
        ("a blood orange bath", None),
        ("so naive", "violence"),
        ("这是裸体画", "sexual"),
        ("grape and blood bath", "violence"),
        ("", None),
    ],
)
async def test_words_are_found_however_they_are_written(text: str, reason: str | None) -> None:
    words = WordList(LIST)
    assert len(words) == 4
    assert await words.refuses_text(text) == reason


@pytest.mark.parametrize(
    ("text", "fault"), [("ok\n[loud]", "line 2.*expected one of"), ("***", "line 1.*no letter")]
)
def test_a_list_with_a_fault_is_refused_by_file_and_line(
    tmp_path: Path, text: str, fault: str
) -> None:
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"words.txt: {fault}"):
        WordList.read(path)


async def test_a_place_that_is_not_named_is_not_judged() -> None:
    judges = Judges([WordList("grape")], frozenset({"upload"}))
    assert await judges.refuse_text("prompt", "grape") is None
    assert await judges.refuse_text("upload", "grape") == "other"
    assert await Judges().refuse_text("prompt", "grape") is None
