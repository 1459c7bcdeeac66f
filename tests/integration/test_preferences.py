"""Four answers become a readable profile; everything short of that is said plainly."""

import base64
import io
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import POOL_SIZE, Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def post(
    client: httpx.AsyncClient, user_id: str, choices: list[dict[str, object]], wait: int = 0
) -> httpx.Response:
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    return await client.post(
        f"/users/{user_id}/preferences", json={"choices": choices}, headers=headers
    )


async def quiz_of(client: httpx.AsyncClient, user_id: str) -> dict[str, Any]:
    return dict((await client.get(f"/users/{user_id}/quiz")).json())


def picture(colour: str, side_px: int = 32, **save: object) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side_px, side_px), colour).save(buffer, **({"format": "PNG"} | save))
    return base64.b64encode(buffer.getvalue()).decode()


async def test_four_answers_posted_together_become_a_profile(service: Service) -> None:
    client = service.client()
    state = await service.answer(client, "ann")
    assert state["status"] == "ready"
    assert (state["choices"], state["needed"], state["profile_version"]) == (4, 0, 1)
    assert state["profile"]["text"].startswith("Likes what was chosen")
    assert state["profile"]["likes"] == ["warm light"]
    assert state["profile"]["dislikes"] == ["clutter"]
    said = {"text", "likes", "dislikes", "not_understood", "answers_used"}
    assert set(state["profile"]) == said  # no number nobody checked
    assert (await client.get(state["links"]["job"])).json()["status"] == "succeeded"


async def test_what_is_asked_next_depends_on_what_was_answered(service: Service) -> None:
    client, asked = service.client(), set()
    pair_ids = [pair["pair_id"] for pair in (await quiz_of(client, "ann"))["pairs"]]
    for preferred in ((0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (1, 0, 1, 0)):
        given = zip(pair_ids, preferred, strict=True)  # the later answer to a pair counts
        await post(client, "ann", [{"pair_id": p, "preferred": one} for p, one in given])
        pairs = (await quiz_of(client, "ann"))["pairs"]
        assert not {pair["pair_id"] for pair in pairs} & set(pair_ids)
        asked.add(tuple(pair["pair_id"] for pair in pairs))
    assert len(asked) > 1


async def test_without_waiting_the_answer_is_202_encoding(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    quiz = await quiz_of(client, "ann")
    answer = await post(
        client, "ann", [{"pair_id": p["pair_id"], "preferred": 0} for p in quiz["pairs"]]
    )
    assert answer.status_code == 202
    assert answer.json()["status"] == "encoding"
    assert answer.json()["profile_version"] == 1
    assert answer.json()["profile"] is None
    waited = await post(client, "ann", [{"pair_id": quiz["pairs"][0]["pair_id"], "preferred": 0}])
    assert waited.status_code == 202


async def test_the_encoder_reads_the_pairs_as_they_were_answered(service: Service) -> None:
    client = service.client()
    quiz = await quiz_of(client, "ann")
    await service.answer(client, "ann", (1, 0, 0, 1))
    ((pairs, _, text),) = service.runtime.encoded
    assert [p.preferred for p in pairs] == [1, 0, 0, 1]
    assert [p.caption for p in pairs] == [p["caption"] for p in quiz["pairs"]]
    assert text is None
    path = (
        service.settings.pool_dir / "images" / quiz["pairs"][0]["images"][1]["url"].split("/")[-1]
    )
    with Image.open(path) as file:
        assert pairs[0].image_1.tobytes() == file.convert("RGB").tobytes()


async def test_answers_one_by_one_leave_the_rest_of_the_quiz_as_it_was(service: Service) -> None:
    client = service.client()
    first = await quiz_of(client, "ann")
    assert (first["needed"], first["answered"], len(first["pairs"])) == (4, 0, 4)
    ids = [pair["pair_id"] for pair in first["pairs"]]
    for done, pair_id in enumerate(ids[:3], start=1):
        state = (await post(client, "ann", [{"pair_id": pair_id, "preferred": 1}])).json()
        assert (state["status"], state["needed"]) == ("collecting", 4 - done)
        assert state["profile_version"] is None
        quiz = await quiz_of(client, "ann")
        assert [pair["pair_id"] for pair in quiz["pairs"]] == ids[done:]
        assert quiz["answered"] == done
    state = (await post(client, "ann", [{"pair_id": ids[3], "preferred": 0}], wait=60)).json()
    assert state["status"] == "ready"


async def test_a_tie_counts_as_an_answer_and_asks_a_further_pair(service: Service) -> None:
    client = service.client()
    ids = [pair["pair_id"] for pair in (await quiz_of(client, "ann"))["pairs"]]
    state = (await post(client, "ann", [{"pair_id": ids[0], "preferred": None}])).json()
    assert (state["choices"], state["needed"], state["status"]) == (1, 4, "collecting")
    left = [pair["pair_id"] for pair in (await quiz_of(client, "ann"))["pairs"]]
    assert left[:3] == ids[1:]
    assert len(left) == 4


async def test_all_ties_are_no_taste_and_say_so(service: Service) -> None:
    client = service.client()
    for _ in range(POOL_SIZE // 4):
        pairs = (await quiz_of(client, "ann"))["pairs"]
        ties = [{"pair_id": pair["pair_id"], "preferred": None} for pair in pairs]
        state = (await post(client, "ann", ties)).json()
        assert state["status"] == "collecting"
    quiz = await quiz_of(client, "ann")
    assert (quiz["needed"], quiz["answered"], quiz["pairs"]) == (4, POOL_SIZE, [])
    assert service.runtime.encoded == []
    job = await service.generate(client, user_id="ann")
    assert job["result"]["personalization_applied"] is False
    assert job["result"]["reason"] == "no_profile"


async def test_answering_a_pair_again_replaces_the_answer(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann", (0, 0, 0, 0))
    held = (await client.get("/users/ann/preferences")).json()["choices"]
    state = (
        await post(client, "ann", [{"pair_id": held[1]["pair_id"], "preferred": 1}], wait=60)
    ).json()
    assert (state["choices"], state["profile_version"], state["status"]) == (4, 2, "ready")
    answers = (await client.get("/users/ann/preferences")).json()
    assert sorted(choice["preferred"] for choice in answers["choices"]) == [0, 0, 0, 1]
    assert [version["status"] for version in answers["profiles"]] == ["ready", "ready"]
    assert answers["profile_version"] == 2


async def test_quiz_pairs_come_with_an_order_of_their_own_for_each_person(
    service: Service,
) -> None:
    client = service.client()
    orders, picks = set(), set()
    for i in range(12):
        quiz = await quiz_of(client, f"person-{i}")
        assert quiz == await quiz_of(client, f"person-{i}")
        orders |= {tuple(pair["order"]) for pair in quiz["pairs"]}
        picks.add(tuple(pair["pair_id"] for pair in quiz["pairs"]))
    assert orders == {(0, 1), (1, 0)}


async def test_a_clients_own_pairs_are_read_and_stored_without_metadata(service: Service) -> None:
    client = service.client()
    notes = PngInfo()
    notes.add_text("Comment", "where I live")
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    formats = [
        {"format": "PNG", "pnginfo": notes},
        {"format": "JPEG", "exif": exif},
        {"format": "WEBP", "exif": exif},
        {"format": "PNG"},
    ]
    choices = [
        {
            "caption": f"my own {i}",
            "images": [picture("red", **save), picture("blue", 2048 if i == 3 else 16)],
            "preferred": i % 2,
        }
        for i, save in enumerate(formats)
    ]
    state = (await post(client, "ann", choices, wait=60)).json()
    assert state["status"] == "ready"
    ((pairs, _, _),) = service.runtime.encoded
    assert [p.caption for p in pairs] == [f"my own {i}" for i in range(4)]
    assert pairs[0].image_0.getpixel((0, 0)) == (255, 0, 0)
    held = (await client.get("/users/ann/preferences")).json()["choices"]
    for choice in held:
        for url in choice["images"]:
            stored = await client.get(url)
            assert stored.headers["content-type"] == "image/png"
            assert b"where I live" not in stored.content
            assert b"Exif" not in stored.content
            assert max(Image.open(io.BytesIO(stored.content)).size) <= 768


async def test_an_edited_text_is_read_in_the_place_of_the_generated_one(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    answer = await client.put(
        "/users/ann/profile", json={"text": "I like fog."}, headers={"Prefer": "wait=60"}
    )
    assert answer.status_code == 200
    assert answer.json()["profile"]["text"] == "I like fog."
    assert answer.json()["profile_version"] == 2
    assert service.runtime.encoded[-1][2] == "I like fog."
    versions = (await client.get("/users/ann/preferences")).json()["profiles"]
    assert [v["source"] for v in versions] == ["generated", "edited"]
    before = await service.generate(client, user_id="ann")
    assert before["result"]["profile_version"] == 2


async def test_a_profile_begins_with_words_alone_and_makes_pictures(service: Service) -> None:
    client = service.client()
    wait = {"Prefer": "wait=60"}
    answer = await client.put("/users/ann/profile", json={"text": "I like fog."}, headers=wait)
    state = answer.json()
    assert (state["status"], state["choices"], state["needed"]) == ("ready", 0, 4)
    assert service.runtime.encoded[-1][0] == []
    assert (await service.generate(client, user_id="ann"))["result"]["personalization_applied"]
    quiz = await quiz_of(client, "ann")
    await post(client, "ann", [{"pair_id": quiz["pairs"][0]["pair_id"], "preferred": 0}])
    await client.put("/users/ann/profile", json={"text": "I like sun."}, headers=wait)
    assert service.runtime.encoded[-1][0] == []
    versions = (await client.get("/users/ann/preferences")).json()["profiles"]
    assert [v["source"] for v in versions] == ["written", "written"]


async def test_words_that_the_model_does_not_know_are_named(service: Service) -> None:
    client = service.client()
    wait = {"Prefer": "wait=60"}
    text = {"text": "warm zzebras and zzithers"}
    answer = (await client.put("/users/ann/profile", json=text, headers=wait)).json()
    assert answer["profile"]["not_understood"] == ["zzebras", "zzithers"]
    again = (await client.get("/users/ann/preferences")).json()["profile"]["not_understood"]
    assert again == ["zzebras", "zzithers"]
    known = await client.put("/users/ann/profile", json={"text": "warm"}, headers=wait)
    assert known.json()["profile"]["not_understood"] == []


async def test_words_alone_of_which_none_is_known_are_no_profile(service: Service) -> None:
    client = service.client()
    answer = await client.put(
        "/users/ann/profile", json={"text": "zzz"}, headers={"Prefer": "wait=60"}
    )
    assert (answer.json()["status"], answer.json()["error"]["code"]) == ("failed", "no_word_read")


async def test_a_text_of_which_no_word_is_known_leaves_the_profile(service: Service) -> None:
    client = service.client()
    before = await service.answer(client, "ann")
    answer = await client.put(
        "/users/ann/profile", json={"text": "zzz"}, headers={"Prefer": "wait=60"}
    )
    assert (answer.json()["status"], answer.json()["error"]["code"]) == ("failed", "no_word_read")
    held = (await client.get("/users/ann/preferences")).json()
    assert held["profile"] == before["profile"]


async def test_newer_answers_overtake_an_encoding_that_still_waits(start: Start) -> None:
    runtime = FakeRuntime()
    service: Service = await start(runtime)
    client = service.client()
    runtime.gate.clear()
    busy = await client.post("/generate", json={"prompt": "a fox"})
    await service.until(client, busy.json()["id"], "running")
    pairs = (await client.get("/pairs", params={"limit": 6})).json()["results"]
    choices = [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]
    first = (await post(client, "ann", choices[:4])).json()
    second = (await post(client, "ann", choices[4:])).json()
    assert (first["profile_version"], second["profile_version"]) == (1, 2)
    runtime.gate.set()
    await service.until(client, second["links"]["job"].split("/")[-1], "succeeded")
    versions = (await client.get("/users/ann/preferences")).json()["profiles"]
    assert [v["status"] for v in versions] == ["superseded", "ready"]
    assert (await client.get(first["links"]["job"])).json()["status"] == "canceled"
    assert len(runtime.encoded) == 2, "six answers are two sets; the overtaken four were not read"


async def test_an_unusable_embedding_fails_with_its_code_and_keeps_the_answers(
    service: Service,
) -> None:
    client = service.client()
    encode = service.runtime.encode

    def not_finite(*args: object) -> object:
        taste = encode(*args)  # type: ignore[arg-type]
        taste.user_emb_D[0] = float("nan")
        return taste

    service.runtime.encode = not_finite  # type: ignore[method-assign, assignment]
    state = await service.answer(client, "ann")
    assert state["status"] == "failed"
    assert state["error"]["code"] == "encoder_invalid"
    assert state["choices"] == 4
    job = await service.generate(client, user_id="ann")
    assert job["result"]["personalization_applied"] is False
