"""A picture's file says where it comes from, in every format, and the same every time."""

import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image

from ppd_model.pictures.origin import DIGITAL_SOURCE_TYPE, MAX_PROMPT_CHARS, Origin
from ppd_model.pictures.writing import FORMATS, KINDS, Format, encoded, recoded

ORIGIN = Origin(7, "ppd-mini-1@73eb", "ebd108001fc7", (3,))
NASTY = 'a "fox" & <b>\'</b>\x01\n\ufffe日本 العربية 😀'
NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "ppd": "urn:ppd:origin#",
}


def picture(side_px: int = 48) -> Image.Image:
    return Image.radial_gradient("L").resize((side_px, side_px)).convert("RGB")


def xmp_of(image: Image.Image) -> dict[str, str]:
    """The properties of a file's XMP, by `space:name`."""
    raw = image.info["xmp"]
    packet = raw.decode() if isinstance(raw, bytes) else raw
    root = ElementTree.fromstring(packet)
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    short = {uri: name for name, uri in NAMESPACES.items()}
    found = {}
    for key, value in description.attrib.items():
        uri, name = re.fullmatch(r"\{(.*)\}(.*)", key).groups()
        found[f"{short.get(uri, uri)}:{name}"] = value
    return found


def comment_of(image: Image.Image) -> str:
    """The JSON beside the picture: a PNG's Comment, else EXIF's UserComment."""
    if "Comment" in image.info:
        return image.info["Comment"]
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment.startswith(b"ASCII\0\0\0")
    return comment[8:].decode()


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_that_a_model_made_it_and_how(format: Format) -> None:
    with Image.open(io.BytesIO(encoded(picture(), format, origin=ORIGIN))) as image:
        assert image.get_format_mimetype() == KINDS[format].media_type
        xmp = xmp_of(image)
        assert xmp["Iptc4xmpExt:DigitalSourceType"] == DIGITAL_SOURCE_TYPE
        assert xmp["Iptc4xmpExt:AISystemUsed"] == xmp["ppd:model"] == "ppd-mini-1@73eb"
        assert (xmp["ppd:seed"], xmp["ppd:profile_version"]) == ("7", "3")
        assert xmp["ppd:adapter_version"] == "ebd108001fc7"
        assert xmp["ppd:personalization_applied"] == "true"
        assert "Iptc4xmpExt:AIPromptInformation" not in xmp
        assert json.loads(comment_of(image)) == {
            "ai_generated": True,
            "seed": 7,
            "model": "ppd-mini-1@73eb",
            "personalization_applied": True,
            "adapter_version": "ebd108001fc7",
            "profile_version": 3,
        }


def test_a_picture_in_nobodys_taste_names_no_adapter() -> None:
    assert Origin(7, "m").facts == {
        "ai_generated": True,
        "seed": 7,
        "model": "m",
        "personalization_applied": False,
    }
    assert Origin(7, "m", "a", (3, 5)).facts["profile_versions"] == [3, 5]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("prompt", [NASTY, "", "😀" * 32_000, "\n&" * 16_000])
def test_any_prompt_can_be_embedded(format: Format, prompt: str) -> None:
    origin = Origin(7, "m", prompt=prompt)
    with Image.open(io.BytesIO(encoded(picture(), format, origin=origin))) as image:
        kept = prompt[:MAX_PROMPT_CHARS]
        assert json.loads(comment_of(image))["prompt"] == kept
        said = xmp_of(image)["Iptc4xmpExt:AIPromptInformation"]
        assert said == kept.replace("\x01", "\ufffd").replace("\ufffe", "\ufffd")


@pytest.mark.parametrize("format", FORMATS)
def test_equal_pictures_are_equal_files_and_a_file_without_origin_is_bare(format: Format) -> None:
    assert encoded(picture(), format, 80, ORIGIN) == encoded(picture(), format, 80, ORIGIN)
    opened = Image.open(io.BytesIO(encoded(picture(), format, 80, ORIGIN)))
    bare = encoded(opened.convert("RGB"), format)
    assert b"xmp" not in bare.lower()
    assert b"Exif" not in bare


@pytest.mark.parametrize("other", FORMATS)
@pytest.mark.parametrize("format", FORMATS)
def test_another_format_says_the_same_origin(format: Format, other: Format) -> None:
    origin = Origin(7, "m", "a", (3, 5), NASTY)
    first, second = encoded(picture(), format, 95, origin), encoded(picture(), other, 95, origin)
    with Image.open(io.BytesIO(recoded(first, other, 95)[0])) as image:
        with Image.open(io.BytesIO(second)) as wanted:
            assert comment_of(image) == comment_of(wanted)
            assert image.info["xmp"] == wanted.info["xmp"]
        near = np.asarray(image.convert("RGB")).astype(int) - np.asarray(picture())
        assert np.abs(near).max() < 16
    with Image.open(io.BytesIO(recoded(encoded(picture(), format), other)[0])) as image:
        assert "xmp" not in image.info


def test_quality_decides_a_lossy_files_size_and_png_keeps_every_pixel() -> None:
    for format in ("jpeg", "webp"):
        sizes = [len(encoded(picture(256), format, quality)) for quality in (20, 60, 100)]
        assert sizes == sorted(set(sizes))
    with Image.open(io.BytesIO(encoded(picture(), origin=ORIGIN))) as image:
        assert image.tobytes() == picture().tobytes()


def test_only_rgb_is_written() -> None:
    with pytest.raises(ValueError, match="expected a picture in RGB, got LA"):
        encoded(picture().convert("LA"))
