"""People's own pictures over REST: read as in training, or refused with a reason; within bounds."""

import base64
import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ppd_model.pictures import apart
from ppd_model.pictures.apart import Allowance, Readers, read_apart
from ppd_model.pictures.reading import KEPT, Limits, PictureError, read_picture
from service.core.pictures import UPLOADS, from_base64
from tests.fake_pickapic import row
from tests.pictures_as_people_have_them import looks, not_read, samples, saved
from tests.running_service import Service
from training.data.pickapic import SCHEMA, PickAPic

pytestmark = pytest.mark.anyio


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def sent(client: httpx.AsyncClient, *texts: str) -> httpx.Response:
    choices = [{"caption": "mine", "images": [text, text], "preferred": 0} for text in texts]
    return await client.post("/users/ann/preferences", json={"choices": choices})


async def stored(client: httpx.AsyncClient) -> list[np.ndarray[Any, Any]]:
    """The pixels of the first picture of every answer, in order."""
    held = (await client.get("/users/ann/preferences")).json()["choices"]
    answers = [await client.get(choice["images"][0]) for choice in held]
    return [np.asarray(Image.open(io.BytesIO(answer.content))) for answer in answers]


def parquet_of(files: Sequence[bytes], folder: Path) -> PickAPic:
    rows = [row(1, "mine", "a", "b", 0, jpg_0=file, jpg_1=file) for file in files]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "own.parquet")
    return PickAPic([folder])


def first_pictures(of: PickAPic) -> list[bytes]:
    return list(of.pictures(np.array([[n, 0] for n in range(len(of))])))


async def test_over_rest_and_from_parquet_a_picture_is_what_is_seen_to_the_pixel(
    service: Service, tmp_path: Path
) -> None:
    kinds = samples()
    files = [seen.data for seen in kinds.values()]
    trained = [read_picture(data, KEPT) for data in first_pictures(parquet_of(files, tmp_path))]
    client = service.client()
    for start in range(0, len(files), 16):
        answer = await sent(client, *map(base64_of, files[start : start + 16]))
        assert answer.status_code == 202, answer.text
    served = await stored(client)
    for (name, seen), ours, theirs in zip(kinds.items(), served, trained, strict=True):
        assert np.array_equal(ours, np.asarray(theirs)), name
        assert theirs.size == seen.size, name
        quarter, middle = theirs.width // 4, theirs.height // 2
        for x, wanted in ((quarter, seen.left), (theirs.width - quarter, seen.right)):
            off = np.abs(np.subtract(theirs.getpixel((x, middle)), wanted)).max()
            assert off <= seen.within, (name, theirs.getpixel((x, middle)), wanted)


async def test_over_rest_and_from_parquet_a_picture_is_refused_in_the_same_words(
    service: Service, tmp_path: Path
) -> None:
    kinds = not_read()
    files = [data for data, _ in kinds.values()]
    answer = await sent(service.client(), *map(base64_of, files))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_image")
    said = {fault["pointer"]: fault["message"] for fault in answer.json()["errors"]}
    stored_files = first_pictures(parquet_of(files, tmp_path))
    for n, (name, (_, word)) in enumerate(kinds.items()):
        assert word in said[f"/choices/{n}/images/0"], name
        with pytest.raises(PictureError) as refused:
            read_picture(stored_files[n], KEPT)
        assert str(refused.value) == said[f"/choices/{n}/images/0"], name


async def test_every_fault_is_named_with_its_place_and_nothing_is_kept(service: Service) -> None:
    client = service.client()
    good = base64_of(saved(looks()))
    heic = base64_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    thin = base64_of(saved(Image.new("RGB", (2048, 16))))
    answer = await sent(client, good, heic, "https://example.org/a.png", thin)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_image"
    said = {fault["pointer"]: fault["message"] for fault in answer.json()["errors"]}
    assert set(said) == {f"/choices/{i}/images/{j}" for i in (1, 2, 3) for j in (0, 1)}
    assert "HEIC" in said["/choices/1/images/0"]
    assert "is an address" in said["/choices/2/images/0"]
    assert "2048 x 16 px, which is too narrow" in said["/choices/3/images/1"]
    assert (await client.get("/users/ann/preferences")).status_code == 404


PNG = saved(looks())
WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "data URL": lambda text: "data:image/png;base64," + text,
    "data URL of parameters": lambda text: "DATA:image/png;charset=utf-8;BASE64," + text,
    "data URL without a type": lambda text: "data:;base64," + text,
    "data URL with percents": lambda text: "data:image/png;base64," + text.replace("=", "%3D"),
    "wrapped": lambda text: base64.encodebytes(base64.b64decode(text)).decode(),
    "wrapped by CRLF": lambda text: "\r\n".join(text[i : i + 64] for i in range(0, len(text), 64)),
    "indented": lambda text: f"\n\t  {text[:40]}\n\t  {text[40:]}\n",
    "URL-safe": lambda text: text.replace("+", "-").replace("/", "_"),
    "without padding": lambda text: text.rstrip("="),
    "padded too much": lambda text: text.rstrip("=") + "====",
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_base64_is_read_however_clients_write_it(how: str, cut: int) -> None:
    data = PNG[: len(PNG) - cut] + b"\xfb\xff\xbf"  # of every remainder, with + and / in it
    assert from_base64(WRITTEN[how](base64_of(data))) == data


@pytest.mark.parametrize(
    "text",
    ["", "=", "A", "not base64!", "data:image/png,abc", "data:image/png;base64,", "Ä" * 8, "A" * 9],
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is (not base64|empty|a data URL without base64)$"):
        from_base64(text)


async def test_a_photograph_of_several_mebibytes_is_read(service: Service) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    photograph = saved(Image.fromarray(noise), "JPEG", quality=97)
    assert len(photograph) > 4 * 2**20
    client = service.client()
    answer = await sent(client, base64.encodebytes(photograph).decode())
    assert answer.status_code == 202, answer.text
    (kept,) = await stored(client)
    assert kept.shape == (576, 768, 3)


async def test_files_of_too_many_bytes_are_refused_by_size_and_nothing_is_decoded(
    service: Service,
) -> None:
    client = service.client()
    most, small = "a picture has at most 12582912", base64_of(b"no picture")
    images = [base64_of(bytes(12 * 2**20 + 1)), small]
    one = {"caption": "mine", "images": images, "preferred": 0}
    answer = await client.post("/users/ann/preferences", json={"choices": [one]})
    assert (answer.status_code, answer.json()["code"]) == (413, "picture_too_large")
    message = f"has 12582913 bytes; {most}"
    assert answer.json()["errors"] == [{"pointer": "/choices/0/images/0", "message": message}]
    together = await sent(client, *[base64_of(bytes(13 * 2**19))] * 2)
    assert (together.status_code, together.json()["code"]) == (413, "picture_too_large")
    message = "has pictures of 27262976 bytes; those of one request have at most 25165824"
    assert together.json()["errors"] == [{"pointer": "/choices", "message": message}]
    assert (await client.get("/users/ann/preferences")).status_code == 404


async def test_two_of_the_largest_files_fit_into_a_body_however_they_are_written(
    service: Service,
) -> None:
    wrapped = base64.encodebytes(bytes(12 * 2**20)).decode().replace("\n", "\r\n")
    answer = await sent(service.client(), "data:image/jpeg;base64," + wrapped)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_image")
    assert "no picture of a known format" in answer.json()["errors"][0]["message"]


def one_bit_png(side_px: int) -> bytes:
    """A black square, made without holding it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    deflate = zlib.compressobj(1)
    row = bytes(1 + side_px // 8)
    pixels = b"".join(deflate.compress(row) for _ in range(side_px)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    some = Readers()
    yield some
    some.close()


AMPLE = Allowance(pixels=10**8, seconds=60, memory_bytes=3 * 2**29)


def test_all_pictures_of_a_request_share_an_allowance_of_pixels(readers: Readers) -> None:
    data = saved(Image.new("L", (1000, 1000)))
    some = Allowance(pixels=2_500_000, seconds=60, memory_bytes=3 * 2**29)
    outcomes = read_apart(readers, [data] * 4, UPLOADS, some)
    assert [isinstance(one, bytes) for one in outcomes] == [True, True, False, False]
    assert "at most 2500000 pixels are read for one request" in str(outcomes[2])


def test_pictures_of_8192_px_are_refused_before_they_are_decoded(readers: Readers) -> None:
    data = one_bit_png(8192)
    began = time.monotonic()
    outcomes = read_apart(readers, [data] * 8, UPLOADS, AMPLE)
    assert time.monotonic() - began < 20
    assert all("more than 25000000 pixels are too many" in str(one) for one in outcomes)


def test_pictures_that_take_too_long_are_given_up(readers: Readers) -> None:
    hasty = Allowance(pixels=10**8, seconds=0.05, memory_bytes=3 * 2**29)
    data = saved(Image.new("RGB", (4900, 4900)), "WEBP", lossless=True)
    (outcome,) = read_apart(readers, [data], UPLOADS, hasty)
    assert isinstance(outcome, PictureError)
    assert "within 0.05 seconds of work" in str(outcome)


def test_a_picture_that_takes_too_much_memory_is_given_up_and_the_service_lives(
    readers: Readers,
) -> None:
    narrow = Allowance(pixels=10**9, seconds=60, memory_bytes=2**29)
    huge = one_bit_png(24_000)  # Pillow holds a byte for each pixel
    limits = Limits(max_side_px=2**16, max_pixels=10**9)
    small, large = read_apart(readers, [PNG, huge], limits, narrow)
    assert isinstance(small, bytes)
    assert isinstance(large, PictureError)


def test_a_reading_process_that_is_lost_is_replaced(readers: Readers) -> None:
    first = read_apart(readers, [PNG], UPLOADS, AMPLE)
    assert readers._process is not None
    readers._process.kill()
    readers._process.wait()
    assert read_apart(readers, [PNG], UPLOADS, AMPLE) == first
    width, height = Image.open(io.BytesIO(PNG)).size
    with readers.begin([PNG, PNG], UPLOADS, AMPLE) as reading:
        assert reading.sizes == [width * height] * 2
        assert [reading.read(i) for i in (1, 0)] == first * 2


def test_the_reading_process_has_none_of_the_services_secrets(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPD_SESSION_SECRET", "zqxj")
    assert "zqxj" not in str(apart._environment())
    assert read_apart(readers, [PNG], UPLOADS, AMPLE) == read_apart(readers, [PNG], UPLOADS, AMPLE)
