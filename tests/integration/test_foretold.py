"""What answers foretell, over REST: embeddings drawn to it, and a number where it holds."""

from pathlib import Path

import numpy as np
import pytest

from ppd_model.answers import AnswerModel
from ppd_model.files.artifact import sha256_of
from ppd_model.readings import EXPECTED_COUNTS
from service.core.foretold import expected_reading
from service.core.pool import load_pool
from tests.fake_runtime import EMB_DIM, FakeRuntime
from tests.integration.conftest import Start
from tests.integration.test_adapters import activate, kept
from tests.integration.test_every_answer import WAIT, held
from tests.integration.test_preferences import picture, post
from tests.running_service import LOOKS, Service, make_pool

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def pool_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pool(tmp_path_factory.mktemp("pool"))
    rng = np.random.default_rng(5)
    AnswerModel(
        encoder_version="fake-encoder-1",
        adapter_version="fake-adapter-1",
        pairs_sha256=sha256_of(folder / "pairs.json"),
        most_answers=8,
        reading_KD=rng.normal(size=(len(LOOKS), EMB_DIM)).tolist(),
        offset_D=[0.0] * EMB_DIM,
        wins_at_none=0.5,
        wins_by=1.0,
        foretells_more=True,
    ).save(folder / "answers.json")
    return folder


async def test_more_than_four_answers_are_drawn_to_what_is_expected_of_them(
    service: Service, pool_dir: Path
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await service.answer(client, "ann", (1, 1, 0, 0))
    answers = (await held(client))["choices"]
    expected = expected_reading(load_pool(pool_dir), answers, "fake-encoder-1")
    assert expected is not None
    readings = [service.runtime.encode(*given).user_emb_D for given in service.runtime.encoded[:2]]
    await service.generate(client, user_id="ann")
    emb_D = service.runtime.generated[-1].user_emb_D
    whole = (np.mean(readings, axis=0) + EXPECTED_COUNTS * expected.emb_D) / (1 + EXPECTED_COUNTS)
    assert emb_D == pytest.approx(whole, abs=1e-5)


async def test_words_of_ones_own_are_not_drawn_to_what_the_answers_say(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await service.answer(client, "ann")
    await client.put("/users/ann/profile", json={"text": "I like fog."}, headers=WAIT)
    readings = [service.runtime.encode(*given).user_emb_D for given in service.runtime.encoded[2:4]]
    await service.generate(client, user_id="ann")
    emb_D = service.runtime.generated[-1].user_emb_D
    assert emb_D == pytest.approx(np.mean(readings, axis=0), abs=1e-6)


async def test_a_profile_says_how_often_it_will_please_as_far_as_that_was_measured(
    service: Service,
) -> None:
    client = service.client()
    first = (await service.answer(client, "ann"))["profile"]
    assert 0.5 < first["confidence"] < first["confidence_after_four_more"] < 1
    assert (await held(client))["profile"] == first
    second = (await service.answer(client, "ann"))["profile"]
    assert second["confidence"] > 0.5
    assert "confidence_after_four_more" not in second, "twelve were not measured"
    third = (await service.answer(client, "ann"))["profile"]
    assert "confidence" not in third


async def test_own_pictures_and_own_words_come_with_no_number(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    edited = await client.put("/users/ann/profile", json={"text": "I like fog."}, headers=WAIT)
    assert "confidence" not in edited.json()["profile"]
    own = {"caption": "mine", "images": [picture("red"), picture("blue")], "preferred": 0}
    await post(client, "bob", [own], wait=60)
    mixed = await service.answer(client, "bob")
    assert mixed["status"] == "ready"
    assert "confidence" not in mixed["profile"]


async def test_another_reader_or_adapter_comes_with_no_number(start: Start) -> None:
    service: Service = await start(FakeRuntime(encoder_version="fake-encoder-2"))
    profile = (await service.answer(service.client(), "ann"))["profile"]
    assert "confidence" not in profile


async def test_with_another_adapter_the_number_goes_and_comes_back(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await activate(service, await kept(service, b"another"))
    assert "confidence" not in (await held(client))["profile"]
    await activate(service, None)
    assert "confidence" in (await held(client))["profile"]


async def test_a_taste_is_foretold_with_the_adapter_that_serves_its_person(
    service: Service,
) -> None:
    client = service.client()
    pairs = (await client.get("/users/anybody/quiz")).json()["pairs"]
    choices = [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]
    trial = await kept(service, b"another")
    async with service.database.write() as store:
        await store.adapters.activate(trial, 0.5)
    foretold, served_first = [], []
    for person in (f"person-{i}" for i in range(6)):
        answered = await client.post(
            f"/users/{person}/preferences?taste=home", json={"choices": choices}, headers=WAIT
        )
        foretold.append("confidence" in answered.json()["profile"])
        async with service.database.read() as store:
            serving, user = (
                await store.adapters.serving(),
                await store.users.find("default", person),
            )
        assert user is not None
        served_first.append(serving.trial_of(user.pk) is None)
    assert foretold == served_first
