"""What people write: what is not read is told, and what cannot be read is refused."""

from typing import Any

import pytest

from ppd_model.words import CaptionWords, Vocabulary
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.integration.test_own_pictures import base64_of
from tests.pictures_as_people_have_them import looks, saved
from tests.running_service import Service

pytestmark = pytest.mark.anyio

NOTHING_SHOWS = [
    "\u200b",
    "\ufeff\u2060",
    "\u200e\u200f\u202e",
    "\u00ad\ufe0f",
    "\U000e0041",
    " \u3164",
]
KNOWN = Vocabulary(frozenset({"a", "boat", "fox"}), most_words=4)
PICTURE = "iVBORw0KGgo="  # nobody looks at it: the caption is refused first


@pytest.fixture
async def small_world(start: Start) -> Service:
    """A service whose model knows three words."""
    runtime = FakeRuntime()
    runtime.vocabulary = KNOWN
    return await start(runtime)


@pytest.mark.parametrize("text", NOTHING_SHOWS)
async def test_a_text_of_which_nothing_shows_is_refused(service: Service, text: str) -> None:
    client = service.client()
    await service.answer(client, "ann")
    own = {"caption": text, "images": [PICTURE] * 2, "preferred": 0}
    refused = [
        await client.post("/generate", json={"prompt": text}),
        await client.post("/users/ann/preferences", json={"choices": [own]}),
        await client.put("/users/ann/profile", json={"text": text}),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert "nothing in it shows" in answer.json()["errors"][0]["message"]
    theirs = await client.post("/v1/images/generations", json={"prompt": text})
    assert (theirs.status_code, theirs.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "prompt", ["zeppelin", "\U0001f600", "\u0642\u0627\u0631\u0628", "[EOS]", "x x x x boat", "..."]
)
async def test_a_prompt_without_a_known_word_is_refused(small_world: Service, prompt: str) -> None:
    client = small_world.client()
    answer = await client.post("/generate", json={"prompt": prompt})
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_prompt")
    assert answer.json()["errors"][0]["pointer"] == "/prompt"
    theirs = await client.post("/v1/images/generations", json={"prompt": prompt})
    assert theirs.status_code == 400
    error = theirs.json()["error"]
    assert (error["code"], error["param"]) == ("unreadable_prompt", "prompt")
    assert small_world.runtime.generated == []


async def test_a_prompt_with_a_known_word_is_made(small_world: Service) -> None:
    job = await small_world.generate(small_world.client(), prompt="a zeppelin, x, BOAT!")
    assert job["status"] == "succeeded"


async def test_any_prompt_that_shows_is_read_where_any_word_is_known(service: Service) -> None:
    for prompt in ("\U0001f600", "\u0642\u0627\u0631\u0628", "..."):
        assert (await service.generate(service.client(), prompt=prompt))["status"] == "succeeded"


async def test_unknown_words_are_told(service: Service) -> None:
    service.runtime.unknown = {"zeppelin", "\U0001f600"}
    client = service.client()
    job = await service.generate(
        client, prompt="a zeppelin \U0001f600", negative_prompt="no zeppelin"
    )
    first, second = job["result"]["warnings"]
    assert (first["code"], first["field"]) == ("unknown_words", "prompt")
    assert first["words"] == ["zeppelin", "\U0001f600"]
    assert "\u201czeppelin\u201d, \u201c\U0001f600\u201d" in first["detail"]
    assert (second["field"], second["words"]) == ("negative_prompt", ["zeppelin"])
    alone = await service.generate(
        client, prompt="a fox", negative_prompt="no zeppelin", guidance_scale=1.0
    )
    assert "warnings" not in alone["result"]  # nobody reads it then


async def test_a_prompt_cut_before_its_first_known_word_is_told_so(small_world: Service) -> None:
    answer = await small_world.client().post("/generate", json={"prompt": "x x x x boat"})
    message = answer.json()["errors"][0]["message"]
    assert "cut after 4 words, before the first one that the model knows" in message


async def test_unknown_words_are_listed_within_bounds(service: Service) -> None:
    words = ["x" * 50, *(f"x{number}" for number in range(69))]
    service.runtime.unknown = set(words)
    job = await service.generate(service.client(), prompt=" ".join(words))
    (warning,) = (w for w in job["result"]["warnings"] if w["code"] == "unknown_words")
    assert warning["words"] == [word[:40] for word in words[:64]]
    assert warning["count"] == 70


async def test_what_is_not_read_of_captions_is_told(start: Start) -> None:
    runtime = FakeRuntime()
    runtime.caption_words = CaptionWords(frozenset(["a", "boat", "by", "the", "sea"]))
    client = (await start(runtime)).client()
    read, dog = "A boat by the sea!", "My dog by sea \U0001f415"
    captions = [read, "the Boat by " * 4, dog, read]
    mine = base64_of(saved(looks()))
    own = [{"caption": text, "images": [mine] * 2, "preferred": 0} for text in captions]
    pool = (await client.get("/users/ann/quiz")).json()["pairs"][0]["pair_id"]
    choices = [*own, {"pair_id": pool, "preferred": 0}]
    answer = await client.post("/users/ann/preferences", json={"choices": choices})
    cut, unread, unknown = answer.json()["warnings"]
    assert (cut["code"], cut["field"]) == ("caption_truncated", "/choices/1/caption")
    assert (unread["code"], unread["field"]) == ("caption_unread", "/choices/2/caption")
    assert (unknown["code"], unknown["field"]) == ("unknown_words", "/choices/2/caption")
    assert unknown["words"] == ["my", "dog", "\U0001f415"]
    assert unknown["count"] == 3


async def test_any_caption_is_read_where_any_word_is_known(service: Service) -> None:
    mine = base64_of(saved(looks()))
    own = {"caption": "\U0001f600", "images": [mine] * 2, "preferred": 0}
    answer = await service.client().post("/users/ann/preferences", json={"choices": [own]})
    assert answer.json()["warnings"] == []


@pytest.mark.parametrize("written", ["", ".", "\u202e!?", "\u200b"])
async def test_a_reading_that_came_to_nothing_is_no_profile(
    service: Service, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    encode = service.runtime.encode

    def speechless(*about: Any) -> Any:
        return type(taste := encode(*about))(**{**vars(taste), "profile": written})

    monkeypatch.setattr(service.runtime, "encode", speechless)
    first = await service.answer(client, "ann")
    assert (first["status"], first["error"]["code"]) == ("failed", "nothing_read")
    assert (await client.get("/users/ann/preferences")).json()["profile"] is None
    job = await service.generate(client, user_id="ann")
    assert job["result"]["personalization_applied"] is False
    monkeypatch.setattr(service.runtime, "encode", encode)
    assert (await service.answer(client, "ann"))["status"] == "ready"
