"""Pictures as people have them are read as they look, or refused by the name of their format."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from ppd_model.pictures.colour import on_white
from ppd_model.pictures.jpeg import scans
from ppd_model.pictures.reading import ANY, KEPT, Limits, PictureError, kept_size, read_picture
from tests.pictures_as_people_have_them import (
    BLUE,
    RED,
    SIZE,
    UPRIGHT_AGAIN,
    WHITE,
    chunk,
    exchanged,
    half_clear,
    looks,
    profile_bytes,
    saved,
    swapped_profile,
    with_chunk,
)

SCAN = b"\xff\xda\0\x02"
MIRRORED = {5, 7, 6, 8}


def raw_png(
    bits: int, kind: int, rows: list[bytes], width: int = SIZE[0], beside: bytes = b""
) -> bytes:
    """A PNG of these rows of samples; `beside`: chunks between header and pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + beside
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def assert_looks(
    data: bytes,
    left: tuple[int, ...] = RED,
    right: tuple[int, ...] = BLUE,
    within: int = 0,
    size: tuple[int, int] = SIZE,
) -> None:
    image = read_picture(data)
    assert (image.mode, image.size, image.info) == ("RGB", size, {})
    quarter, middle = size[0] // 4, size[1] // 2
    for x, wanted in ((quarter, left), (size[0] - quarter, right)):
        seen = image.getpixel((x, middle))
        assert all(abs(a - b) <= within for a, b in zip(seen, wanted, strict=True)), (x, seen)


# ---- upright


WRITE = {
    "jpeg": lambda image, exif: saved(image, "JPEG", quality=97, subsampling=0, exif=exif),
    "png": lambda image, exif: saved(image, "PNG", exif=exif),
    "webp": lambda image, exif: saved(image, "WEBP", lossless=True, exif=exif),
    "avif": lambda image, exif: saved(image, "AVIF", quality=97, subsampling="4:4:4", exif=exif),
}


def corners() -> Image.Image:
    """A picture that no turn and no mirror leaves as it is."""
    picture = looks()
    picture.paste((250, 250, 20), (0, 0, 32, 16))
    return picture


@pytest.mark.parametrize("format", WRITE)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_obeyed_in_every_format(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = corners()
    if orientation in UPRIGHT_AGAIN:
        turned = turned.transpose(UPRIGHT_AGAIN[orientation])
    image = read_picture(WRITE[format](turned, exif.tobytes()))
    assert image.size == SIZE
    for place in ((8, 8), (8, 24), (48, 8), (48, 24)):
        seen, wanted = image.getpixel(place), corners().getpixel(place)
        assert max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) <= 16, place


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_leaves_the_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_looks(saved(looks(), "PNG", exif=exif.tobytes()))


def test_odd_exif_leaves_the_picture() -> None:
    text = b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0"
    for exif in (b"", b"nonsense", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow says that it is corrupt
            assert_looks(with_chunk(saved(looks()), b"eXIf", exif))
            jpeg = saved(looks(), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + exif)
            assert_looks(jpeg, within=4)


def test_an_orientation_that_stands_in_xmp_alone_counts() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    turned = looks(BLUE, RED)
    assert_looks(saved(turned, "JPEG", quality=95, subsampling=0, xmp=xmp), within=4)
    assert_looks(saved(turned, "WEBP", lossless=True, xmp=xmp))
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    assert_looks(saved(turned, "PNG", pnginfo=text))


# ---- depth


def test_sixteen_bits_a_channel_are_scaled() -> None:
    grey = [struct.pack(">64H", *[0x3000] * 32, *[0xB0FF] * 32)] * 32
    assert_looks(raw_png(16, 0, grey), (48,) * 3, (176,) * 3)
    red, blue = ([value * 257 for value in colour] for colour in (RED, BLUE))
    assert_looks(raw_png(16, 2, [struct.pack(">192H", *red * 32, *blue * 32)] * 32))
    rgba = struct.pack(">256H", *[*red, 65535] * 32, *[*blue, 0] * 32)
    assert_looks(raw_png(16, 6, [rgba] * 32), right=WHITE)
    grey_alpha = struct.pack(">128H", *[0x3000, 65535] * 32, *[0x3000, 0x8000] * 32)
    assert_looks(raw_png(16, 4, [grey_alpha] * 32), (48,) * 3, (152,) * 3, within=1)


@pytest.mark.parametrize(("bits", "levels"), [(1, 1), (2, 3), (4, 15), (8, 255)])
def test_greys_of_few_bits_fill_the_whole_range(bits: int, levels: int) -> None:
    ones = b"\xff" * (32 * bits // 8)
    assert_looks(raw_png(bits, 0, [bytes(len(ones)) + ones] * 32), (0,) * 3, (255,) * 3)
    # with a value that means transparent: black becomes white, and white stays
    key = chunk(b"tRNS", struct.pack(">H", 0))
    assert_looks(raw_png(bits, 0, [bytes(len(ones)) + ones] * 32, beside=key), WHITE, WHITE)
    key = chunk(b"tRNS", struct.pack(">H", levels))
    assert_looks(raw_png(bits, 0, [ones + bytes(len(ones))] * 32, beside=key), WHITE, (0,) * 3)


# ---- transparency


def test_transparency_is_laid_on_white() -> None:
    for data, within in (
        (saved(half_clear()), 0),
        (saved(half_clear(), "WEBP", lossless=True), 0),
        (saved(half_clear(), "AVIF", quality=97, subsampling="4:4:4"), 8),
        (saved(half_clear().quantize(8)), 3),
        (saved(half_clear(), "GIF"), 3),
    ):
        assert_looks(data, right=WHITE, within=within)
    grey = ImageOps.grayscale(looks((90,) * 3, (90,) * 3)).convert("LA")
    grey.putalpha(half_clear().getchannel("A"))
    assert_looks(saved(grey), (90,) * 3, WHITE)


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    image = looks().convert("RGBA")
    image.putalpha(128)
    mixed = [tuple(round((c * 128 + 255 * 127) / 255) for c in colour) for colour in (RED, BLUE)]
    assert_looks(saved(image), *mixed, within=1)
    assert_looks(saved(image, "WEBP", lossless=True, exact=True), *mixed, within=1)


def test_one_colour_that_means_transparent_is_white_and_its_neighbours_are_not() -> None:
    key = chunk(b"tRNS", struct.pack(">3H", *BLUE))
    row = bytes([*RED * 32, *BLUE * 32])
    assert_looks(raw_png(8, 2, [row] * 32, beside=key), right=WHITE)
    near = bytes([*RED * 32, *(BLUE[0], BLUE[1], BLUE[2] + 1) * 32])
    assert_looks(raw_png(8, 2, [near] * 32, beside=key), right=(30, 60, 201))
    deep = struct.pack(">3H", *(value * 257 for value in BLUE))
    row = struct.pack(">192H", *[v * 257 for v in RED] * 32, *[v * 257 for v in BLUE] * 32)
    assert_looks(raw_png(16, 2, [row] * 32, beside=chunk(b"tRNS", deep)), right=WHITE)


def test_premultiplied_and_paletted_modes_are_read_too() -> None:
    for mode, within in (("RGBa", 1), ("PA", 3), ("RGBA", 0)):
        image = half_clear()
        if mode == "PA":
            image = looks().quantize(8).convert("PA")
            image.putalpha(half_clear().getchannel("A"))
        else:
            image = image.convert(mode)
        plain = on_white(image)
        for x, wanted in ((16, RED), (48, WHITE)):
            seen = plain.getpixel((x, 16))
            assert max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) <= within, mode
    grey = Image.new("LA", SIZE, (200, 0)).convert("La")
    assert on_white(grey).getpixel((0, 0)) == WHITE


# ---- colour


def grey_profile(exponent: float) -> bytes:
    """A profile of greys that are light to the power of 1 / `exponent`."""
    white = struct.pack(">4sI3i", b"XYZ ", 0, 63190, 65536, 54061)
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(exponent * 256)) + b"\0\0"
    text = b"desc\0\0\0\0\0\0\0\x05grey\0" + bytes(79)
    tags, at = [], 132 + 12 * 3
    body = b""
    for name, data in ((b"desc", text), (b"wtpt", white), (b"kTRC", curve)):
        tags.append(struct.pack(">4sII", name, at + len(body), len(data)))
        body += data + bytes(-len(data) % 4)
    length = at + len(body)
    head = struct.pack(">I4sI4s4s4s", length, b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    assert len(head) == 128
    return head + struct.pack(">I", 3) + b"".join(tags) + body


@pytest.mark.parametrize(
    "write",
    [
        lambda image, icc: saved(image, icc_profile=icc),
        lambda image, icc: saved(image.convert("RGBA"), icc_profile=icc),
        lambda image, icc: saved(image.quantize(8), icc_profile=icc),
        lambda image, icc: saved(image, "JPEG", quality=97, subsampling=0, icc_profile=icc),
        lambda image, icc: saved(image, "WEBP", lossless=True, icc_profile=icc),
        lambda image, icc: saved(image, "AVIF", quality=97, subsampling="4:4:4", icc_profile=icc),
    ],
    ids=["png", "rgba", "palette", "jpeg", "webp", "avif"],
)
def test_colours_are_converted_by_their_profile(
    write: Callable[[Image.Image, bytes], bytes],
) -> None:
    assert_looks(write(exchanged(looks()), swapped_profile()), within=10)


def test_srgbs_own_profile_changes_nothing() -> None:
    assert_looks(saved(looks(), icc_profile=profile_bytes(ImageCms.createProfile("sRGB"))))


def test_a_damaged_profile_or_one_of_other_colours_is_ignored() -> None:
    good = swapped_profile()
    lab = profile_bytes(ImageCms.createProfile("LAB"))
    for icc in (b"\0" * 200, good[:300], good[:128], b"x", lab, grey_profile(1.0)):
        assert_looks(saved(looks(), icc_profile=icc))
        assert_looks(saved(looks(), "WEBP", lossless=True, icc_profile=icc))
    assert_looks(with_chunk(saved(looks()), b"iCCP", b"name\0\0not deflated"))
    assert_looks(with_chunk(saved(looks()), b"iCCP", b"name"))


def test_a_profile_of_greys_and_one_of_rgb_on_greys_are_used() -> None:
    linear = Image.new("L", SIZE, 55)  # 0.2157 of the light: 128 in sRGB
    for data in (
        saved(linear, icc_profile=grey_profile(1.0)),
        saved(linear, "JPEG", quality=97, icc_profile=grey_profile(1.0)),
    ):
        assert_looks(data, (128,) * 3, (128,) * 3, within=3)
    plain = Image.new("L", SIZE, 128)
    srgb = profile_bytes(ImageCms.createProfile("sRGB"))
    assert_looks(saved(plain, "JPEG", icc_profile=srgb), (128,) * 3, (128,) * 3, within=1)


def test_gamma_counts_where_no_profile_and_no_srgb_is_said() -> None:
    grey = raw_png(8, 0, [bytes([55] * 64)] * 32, beside=chunk(b"gAMA", struct.pack(">I", 100_000)))
    assert_looks(grey, (128,) * 3, (128,) * 3, within=1)
    assert_looks(with_chunk(grey, b"sRGB", b"\0"), (55,) * 3, (55,) * 3)
    for usual in (45455, 45450, 0, 2**31):
        assert_looks(with_chunk(saved(looks()), b"gAMA", struct.pack(">I", usual)))


def test_cmyk_is_seen_as_it_was_meant_also_by_way_of_ycck() -> None:
    cmyk = looks().convert("CMYK")
    data = saved(cmyk, "JPEG", quality=97, subsampling=0)
    assert data.count(b"Adobe")
    assert_looks(data, within=8)
    # YCCK of one colour: Y, Cb, Cr are those of 255 - CMY, and what is 2 in Adobe's segment
    at = data.index(b"Adobe") + 11
    ycck = data[:at] + b"\2" + data[at + 1 :]
    assert read_picture(ycck).mode == "RGB"


# ---- what lies beside the pixels


def test_text_of_any_length_is_neither_read_nor_inflated() -> None:
    bomb = zlib.compress(bytes(64 * 2**20), 9)
    png = saved(looks())
    for name, body in (
        (b"zTXt", b"Comment\0\0" + bomb),
        (b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        (b"tEXt", b"Comment\0" + b" " * 3_000_000),
        (b"iTXt", b"\xff" * 40),
        (b"zTXt", b"no end"),
        (b"tIME", b"short"),
        (b"pHYs", b"x"),
        (b"cHRM", b"x"),
        (b"acTL", b"x"),
        (b"abCd", b"private"),
    ):
        assert_looks(with_chunk(png, name, body))
    assert_looks(png[:33] + chunk(b"tEXt", b"Comment\0fine")[:-4] + b"\0\0\0\0" + png[33:])


def test_a_profile_of_any_length_is_ignored() -> None:
    bomb = b"name\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    assert_looks(with_chunk(saved(looks()), b"iCCP", bomb))


def test_many_long_segments_of_a_jpeg_are_passed_over() -> None:
    jpeg = saved(looks(), "JPEG", quality=95, subsampling=0)
    segments = b"".join(
        b"\xff" + bytes([kind]) + struct.pack(">H", 65_000) + bytes(64_998)
        for kind in (0xE1, 0xE2, 0xED, 0xFE) * 4
    )
    assert_looks(jpeg[:2] + segments + jpeg[2:], within=4)


# ---- several frames


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "AVIF"])
def test_an_animation_gives_its_first_frame(format: str) -> None:
    others = [looks(BLUE, RED), looks(WHITE, RED)]
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 97}}.get(format, {})
    data = saved(looks(), format, save_all=True, append_images=others, duration=90, **options)
    assert_looks(data, within=16 if format == "AVIF" else 0)


def test_a_picture_of_two_lenses_gives_the_first() -> None:
    data = saved(looks(), "MPO", save_all=True, append_images=[looks(BLUE, RED)])
    assert_looks(data, within=16)


def test_a_gif_whose_first_frame_is_smaller_than_its_canvas_is_white_around_it() -> None:
    frame = saved(looks().crop((0, 0, 32, 32)), "GIF")
    assert_looks(frame[:6] + struct.pack("<HH", *SIZE) + frame[10:], right=WHITE)


# ---- phones


def test_heic_is_read_upright_where_its_reader_is_installed() -> None:
    heif = pytest.importorskip("pillow_heif")
    for orientation, turned in ((1, looks()), (6, looks().transpose(UPRIGHT_AGAIN[6]))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        heif.from_pillow(turned).save(buffer, quality=95, chroma=444, exif=exif.tobytes())
        assert_looks(buffer.getvalue(), within=16)


# ---- refusals


NOT_READ = {
    "BMP": saved(looks(), "BMP"),
    "TIFF": saved(looks(), "TIFF"),
    "ICO": saved(looks(), "ICO"),
    "JPEG 2000": saved(looks(), "JPEG2000"),
    "JPEG XL": b"\xff\x0a" + bytes(40),
    "PPM": saved(looks(), "PPM"),
    "PDF": b"%PDF-1.7\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "Photoshop": b"8BPS\0\x01" + bytes(40),
    "SVG": b"\xef\xbb\xbf  <svg xmlns='http://www.w3.org/2000/svg'/>",
    "HTML": b"<!DOCTYPE html><html>",
    "video": b"\0\0\0\x18ftypisom\0\0\0\0isommp41",
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_read_is_refused_by_name(name: str) -> None:
    with pytest.raises(PictureError, match=name):
        read_picture(NOT_READ[name])


def test_what_is_no_picture_says_so() -> None:
    for data in (b"", b"\0" * 100, b"hello", b"RIFF"):
        with pytest.raises(PictureError, match=r"known format|AVI or WAV"):
            read_picture(data)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WebP", "GIF", "AVIF"])
def test_what_is_cut_short_names_its_format_wherever_it_is_cut(format: str) -> None:
    noise = Image.effect_noise((96, 64), 90).convert("RGB")
    whole = saved(noise, format.upper())
    assert read_picture(whole).size == (96, 64)
    for share in (0.03, 0.1, 0.3, 0.6, 0.9):
        with pytest.raises(PictureError, match=f"is a damaged {format}: "):
            read_picture(whole[: max(16, int(len(whole) * share))])


def test_a_damaged_heic_names_its_format() -> None:
    with pytest.raises(PictureError, match="HEIC"):
        read_picture(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))


def test_limits_are_looked_at_before_pixels_are_decoded() -> None:
    limits = Limits(min_side_px=16, max_side_px=2000, max_pixels=1_000_000, kept_side_px=768)
    giant = raw_png(8, 2, [b""])
    giant = giant[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + giant[24:29]
    giant += struct.pack(">I", zlib.crc32(giant[12:29])) + chunk(b"IDAT", b"")
    webp = saved(Image.new("RGB", (2001, 16)), "WEBP", lossless=True)
    lossy = saved(Image.new("RGB", (2001, 16)), "WEBP")
    extended = saved(Image.new("RGBA", (2001, 16)), "WEBP", exif=Image.Exif().tobytes())
    for data in (giant, webp[:30], lossy[:30], extended[:30]):
        with pytest.raises(PictureError, match="needs sides of 16 to 2000 px"):
            read_picture(data, limits)
    with pytest.raises(PictureError, match="a PNG of 64 x 15 px"):
        read_picture(saved(Image.new("RGB", (64, 15))), limits)
    with pytest.raises(PictureError, match="more than 1000000 pixels are too many"):
        read_picture(saved(Image.new("L", (1001, 1000))), limits)
    with pytest.raises(PictureError, match=r"2000 x 41 px, which is too narrow.* 768 x 16|15"):
        read_picture(saved(Image.new("L", (2000, 40))), limits)
    assert read_picture(saved(Image.new("L", (2000, 42))), limits).size == (768, 16)


@pytest.mark.parametrize("limits", [ANY, KEPT])
def test_data_sets_have_no_picture_that_the_service_would_refuse_as_too_narrow(
    limits: Limits,
) -> None:
    with pytest.raises(PictureError, match=r"too narrow.* 768 x 6 px"):
        read_picture(saved(Image.new("L", (2048, 16))), limits)
    assert read_picture(saved(Image.new("L", (200, 2))), limits).size == (200, 2)


def test_a_jpeg_of_many_scans_is_refused() -> None:
    jpeg = saved(looks(), "JPEG")
    with pytest.raises(PictureError, match="more than 64 scans"):
        read_picture(jpeg[:-2] + SCAN * 64 + jpeg[-2:])


def test_scans_in_a_jpegs_thumbnail_or_after_its_end_are_not_counted() -> None:
    jpeg = saved(looks(), "JPEG", progressive=True)
    comment = b"\xff\xfe\x02\x02" + SCAN * 128
    assert 1 < scans(jpeg) == scans(jpeg[:2] + comment + jpeg[2:] + SCAN * 65) < 64
    assert read_picture(jpeg[:2] + comment + jpeg[2:] + SCAN * 65).size == SIZE


def test_a_picture_without_a_side_is_refused() -> None:
    jpeg = saved(looks(), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    for data in (jpeg[:at] + b"\0\0" + jpeg[at + 2 :], raw_png(8, 0, [b""], width=0)):
        with pytest.raises(PictureError, match=r"JPEG|PNG"):
            read_picture(data)


# ---- scaling


def test_a_large_picture_is_kept_smaller_and_as_it_looks() -> None:
    large = looks().resize((2001, 1000), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(large.transpose(UPRIGHT_AGAIN[6]), "JPEG", quality=95, exif=exif.tobytes())
    for data in (saved(large), turned):
        image = read_picture(data, KEPT)
        assert image.size == kept_size(large.size, KEPT) == (768, 384)
        for x, wanted in ((192, RED), (576, BLUE)):
            seen = image.getpixel((x, 192))
            assert max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) <= 4
    assert read_picture(saved(large)).size == (2001, 1000)
