"""Blind choices are counted by adapter, over people, and say which of two adapters is better."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from service.cli.commands import app
from service.core.proof.serving import Serving
from tests.integration.test_adapters import SHIPPED, kept
from tests.integration.test_made_pairs import choices_of, made
from tests.integration.test_preferences import post
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def pair(service: Service, client: httpx.AsyncClient, user_id: str, seed: int) -> list[str]:
    """The ids of a picture in somebody's taste, and of the base."""
    own = await made(service, client, user_id=user_id, seed=seed)
    return [own, await made(service, client, seed=seed)]


async def choose(
    client: httpx.AsyncClient,
    user_id: str,
    ids: list[str],
    preferred: int | None,
    *,
    blind: bool = True,
) -> None:
    answer = {"image_ids": ids, "preferred": preferred, "blind": blind}
    posted = await post(client, user_id, [answer])
    assert posted.is_success, posted.text


async def wins(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await client.get("/admin/wins", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def tally(report: dict[str, Any], version: str = SHIPPED) -> dict[str, int]:
    (one,) = [one for one in report["results"] if one["adapter_version"] == version]
    return dict(one["choices"])


async def test_wins_losses_ties_and_contradictions_are_told_apart(service: Service) -> None:
    client = service.client()
    assert await wins(client) == {"each": 1, "confidence": 0.95, "results": [], "share": None}
    await service.answer(client, "ann")
    pairs = [await pair(service, client, "ann", seed) for seed in range(4)]
    for ids, preferred in zip(pairs, (0, 1, None, 0), strict=True):
        await choose(client, "ann", ids, preferred)
    assert tally(await wins(client)) == {"won": 2, "lost": 1, "tied": 1, "inconsistent": 0}
    await choose(client, "ann", pairs[0][::-1], 1)  # the same one, the other way round
    assert tally(await wins(client))["won"] == 2
    await choose(client, "ann", pairs[3], 1)
    report = await wins(client)
    assert tally(report) == {"won": 1, "lost": 1, "tied": 1, "inconsistent": 1}
    (one,) = report["results"]
    assert (one["people"], one["observed"], one["wins"]) == (1, 1, 1.0)
    assert one["interval"][0] < 0.03
    (of_two,) = (await wins(client, each=2))["results"]
    assert (of_two["observed"], of_two["wins"]) == (1, 0.5)
    (of_four,) = (await wins(client, each=4))["results"]
    assert (of_four["observed"], of_four["wins"], of_four["interval"]) == (0, None, None)
    assert (await client.get("/admin/wins", params={"each": 17})).status_code == 422
    told = (await client.get("/metrics")).text
    counted = 'ppd_blind_choices_total{adapter="fake-adapter-1",outcome="%s"} %.1f'
    for outcome, number in (("won", 3), ("lost", 1), ("tied", 1), ("inconsistent", 1)):
        assert counted % (outcome, number) in told
    exported = (await client.get("/users/ann/export")).json()["blind_choices"]
    assert [entry["won"] for entry in exported] == [True, False, None, True, True, False]


async def test_only_the_same_picture_but_for_the_taste_proves_anything(service: Service) -> None:
    client = service.client()
    for person in ("ann", "bob"):
        await service.answer(client, person)
    own = await made(service, client, user_id="ann")
    others = [
        await made(service, client, seed=2),
        await made(service, client, steps=4),
        await made(service, client, guidance_scale=2.0),
        await made(service, client, negative_prompt="rain"),
        await made(service, client, user_id="ann", strength=0.5),
        await made(service, client, blend=[{"user_id": "ann", "weight": 1.0}]),
    ]
    for other in others:
        await choose(client, "ann", [own, other], 0)
    base = await made(service, client)
    await choose(client, "bob", [await made(service, client, seed=3), base], 0)
    assert (await wins(client))["results"] == []
    assert {choice["origin"] for choice in await choices_of(client)} == {"pool", "made"}
    await choose(client, "ann", [own, base], 0, blind=False)
    await choose(client, "ann", [own, base], 1)
    assert (await wins(client))["results"] == [], "which is which was told already"
    await choose(client, "ann", await pair(service, client, "ann", 9), 1)
    assert tally(await wins(client))["lost"] == 1


async def test_the_base_may_be_the_persons_own_at_strength_0_and_one_of_several(
    service: Service,
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    own = await made(service, client, user_id="ann", seed=8)
    base = await made(service, client, user_id="ann", strength=0, seed=8)
    await choose(client, "ann", [base, own], 1)
    several = await service.generate(client, n=2, seed=7)
    second = several["result"]["images"][1]["url"].split("/")[-1]
    await choose(client, "ann", [own, second], 0)
    assert tally(await wins(client))["won"] == 2


async def test_what_is_changed_knowingly_is_no_blind_choice_and_what_is_removed_goes(
    service: Service,
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    for seed in range(2):
        await choose(client, "ann", await pair(service, client, "ann", seed), 0)
    changed, removed = [choice["id"] for choice in (await choices_of(client))[-2:]]
    answer = await client.patch(f"/users/ann/preferences/{changed}", json={"preferred": 1})
    assert answer.is_success
    assert tally(await wins(client))["won"] == 2
    assert (await client.delete(f"/users/ann/preferences/{removed}")).is_success
    assert tally(await wins(client))["won"] == 1
    assert (await client.delete("/users/ann")).is_success
    assert (await wins(client))["results"] == []


async def test_a_browser_session_proves_as_well(service: Service) -> None:
    browser, user_id = await service.session()
    await service.answer(browser, user_id)
    await choose(browser, user_id, await pair(service, browser, user_id, 1), 0)
    assert tally(await wins(service.client()))["won"] == 1


async def test_two_adapters_side_by_side_are_compared_until_one_is_for_all(
    service: Service,
) -> None:
    client = service.client()
    two = await kept(service, b"two")
    people = [f"person-{i}" for i in range(16)]
    for person in people:
        await service.answer(client, person)
    before = await pair(service, client, people[0], 1)
    await choose(client, people[0], before, 1)
    assert (await wins(client))["share"] is None
    answer = await client.post(f"/admin/adapters/{two}/share", json={"share": 0.5})
    assert answer.status_code == 200
    serving, in_trial = Serving(None, two, 0.5), 0
    for person in people:
        async with service.database.read() as store:
            user = await store.users.find("default", person)
        assert user is not None
        ids = await pair(service, client, person, 2)
        is_trial = serving.trial_of(user.pk) is not None
        in_trial += is_trial
        await choose(client, person, ids, 0 if is_trial else 1)
    report = await wins(client)
    share = report["share"]
    assert (share["first"], share["trial"], share["share"]) == (None, two, 0.5)
    assert (share["of_trial"]["observed"], share["of_trial"]["wins"]) == (in_trial, 1.0)
    assert (share["of_first"]["observed"], share["of_first"]["wins"]) == (16 - in_trial, 0.0)
    assert 0 < in_trial < 16
    assert (share["difference"], share["until"]) == (1.0, None)
    assert share["better"] == ("trial" if share["interval"][0] > 0 else None)
    assert tally(report, two)["won"] == in_trial
    assert tally(report)["lost"] == 16 - in_trial + 1

    await client.post(f"/admin/adapters/{two}/activate")
    await choose(client, people[0], await pair(service, client, people[0], 3), 0)
    ended = (await wins(client))["share"]
    assert ended["until"] is not None
    assert {**ended, "until": None} == share


@pytest.mark.sqlite_only
async def test_the_command_says_the_same(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPD_MIN_FREE_BYTES", "0")
    client = service.client()

    async def ppd(*arguments: str) -> str:
        command = ["wins", *arguments, "--data-dir", str(service.settings.data_dir)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == 0, result.output
        return result.output

    assert "nobody has chosen" in await ppd()
    await service.answer(client, "ann")
    two = await kept(service, b"two")
    await client.post(f"/admin/adapters/{two}/share", json={"share": 0.999_999})
    await choose(client, "ann", await pair(service, client, "ann", 1), 0)
    lines = (await ppd()).splitlines()
    assert lines[3].split() == [two, "1", "0", "0", "0", "1", "1", "1.000", "[0.025,", "1.000]"]
    assert "the shipped adapter" in lines[5]
    assert "not known" in lines[-1]
    assert json.loads(await ppd("--json", "--each", "1")) == await wins(client)
