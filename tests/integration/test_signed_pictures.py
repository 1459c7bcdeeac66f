"""With a certificate every picture carries a signed manifest, which the library itself reads."""

import io
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from PIL import Image

from ppd_model.pictures.origin import DIGITAL_SOURCE_TYPE
from service.cli.doctor import examine
from service.settings import Settings
from service.wiring import signer
from tests.certificates import certificate_and_key
from tests.fake_runtime import FakeRuntime
from tests.running_service import Service

pytestmark = pytest.mark.anyio


def manifest(data: bytes, media_type: str) -> dict[str, Any]:
    with c2pa.Reader(media_type, io.BytesIO(data)) as reader:
        assert reader.get_validation_state() == "Valid"
        return dict(reader.get_active_manifest())


def created(data: bytes, media_type: str) -> dict[str, Any]:
    (assertion,) = manifest(data, media_type)["assertions"]
    assert assertion["label"] == "c2pa.actions.v2"
    (action,) = assertion["data"]["actions"]
    return dict(action)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_every_file_says_by_signature_which_model_made_it(
    start: Any, tmp_path: Path, format: str
) -> None:
    service = await start(**certificate_and_key(tmp_path))
    client = service.client()
    await service.answer(client, "ann")
    job = await service.generate(client, user_id="ann", format=format, prompt="a secret fox")
    answer = await client.get(job["result"]["images"][0]["url"])
    media_type = answer.headers["content-type"]
    assert media_type == f"image/{format}"
    action = created(answer.content, media_type)
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert action["softwareAgent"]["name"] == "fake-model-1"
    assert action["parameters"]["ppd.adapter_version"] == "fake-adapter-1"
    assert action["parameters"]["ppd.seed"] == 7
    told = manifest(answer.content, media_type)
    assert told["claim_generator_info"][0]["name"] == "ppd"
    assert told["signature_info"]["common_name"] == "Test Signer"
    assert "secret" not in str(told)
    assert "ann" not in str(told["assertions"])
    assert DIGITAL_SOURCE_TYPE.encode() in answer.content, "the unsigned mark stays"


async def test_in_another_format_it_is_signed_anew(start: Any, tmp_path: Path) -> None:
    service = await start(**certificate_and_key(tmp_path))
    client = service.client()
    url = (await service.generate(client))["result"]["images"][0]["url"]
    answer = await client.get(url, headers={"Accept": "image/webp"})
    assert answer.headers["content-type"] == "image/webp"
    assert created(answer.content, "image/webp")["parameters"]["ppd.ai_generated"] is True


async def test_a_changed_pixel_is_seen_and_signing_changes_none(start: Any, tmp_path: Path) -> None:
    plain = await start(data_dir=tmp_path / "plain")
    signed = await start(data_dir=tmp_path / "signed", **certificate_and_key(tmp_path))
    files = []
    for service in (plain, signed):
        client = service.client()
        url = (await service.generate(client))["result"]["images"][0]["url"]
        files.append((await client.get(url)).content)
    before, after = (np.asarray(Image.open(io.BytesIO(file))) for file in files)
    assert np.array_equal(before, after)
    with pytest.raises(c2pa.C2paError):
        c2pa.Reader("image/png", io.BytesIO(files[0]))
    forged = bytearray(files[1])
    forged[forged.index(b"IDAT") + 20] ^= 1
    with c2pa.Reader("image/png", io.BytesIO(forged)) as reader:
        assert reader.get_validation_state() == "Invalid"


async def test_the_studio_and_every_result_say_that_a_model_made_it(service: Service) -> None:
    browser, user_id = await service.session()
    assert "made by a model" in (await browser.get("/studio")).text
    job = await service.generate(browser, user_id=user_id)
    assert job["result"]["ai_generated"] is True


def test_what_cannot_sign_is_refused_at_the_start_and_the_doctor_watches_the_certificates_end(
    tmp_path: Path,
) -> None:
    files = certificate_and_key(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    stranger = certificate_and_key(other, days=10)
    with pytest.raises(ValueError, match="not that of the certificate"):
        signer(Settings(c2pa_certificate=files["c2pa_certificate"], c2pa_key=stranger["c2pa_key"]))
    with pytest.raises(ValueError, match="PPD_C2PA_KEY go together"):
        Settings(c2pa_certificate=files["c2pa_certificate"])

    def said(**given: Any) -> str:
        lines: list[str] = []
        examine(Settings(data_dir=tmp_path, **given), FakeRuntime, lines.append)
        return next(line for line in lines if "signed pictures:" in line)

    assert said().startswith("skipped")
    assert said(**files).startswith("ok")
    assert said(**stranger).startswith("warning signed pictures: the certificate ends on")
