"""What a picture's file says of where it comes from: a model made it, which one, and how.

The same facts stand in two places: as JSON, which people and simple tools read, and as XMP, where
editors and platforms look for IPTC's `DigitalSourceType`. No fact names a person.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Self
from xml.sax.saxutils import quoteattr

SOFTWARE = "ppd"
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MAX_PROMPT_CHARS = 4_000
"""A JPEG holds no more than 64 KiB of text in one piece: what is longer is cut."""

_NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "ppd": "urn:ppd:origin#",
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Origin:
    """What a generated picture was made with, as far as it decided the picture.

    `adapter_version` and `profile_versions` belong to a taste: they are left out where none was
    applied, so that such a picture's file is that of a request without a person.
    `profile_versions` has one entry, or one for each person of a blend.
    """

    seed: int
    model: str
    adapter_version: str | None = None
    profile_versions: tuple[int, ...] = ()
    prompt: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """By the names that results have."""
        facts: dict[str, Any] = {
            "ai_generated": True,
            "seed": self.seed,
            "model": self.model,
            "personalization_applied": bool(self.profile_versions),
        }
        if self.profile_versions:
            facts["adapter_version"] = self.adapter_version
            if len(self.profile_versions) == 1:
                facts["profile_version"] = self.profile_versions[0]
            else:
                facts["profile_versions"] = list(self.profile_versions)
        if self.prompt is not None:
            facts["prompt"] = self.prompt[:MAX_PROMPT_CHARS]
        return facts

    @property
    def as_json(self) -> str:
        """ASCII, in one line."""
        return json.dumps(self.facts)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `as_json` again. Raises ValueError and KeyError for anything else."""
        facts = json.loads(text)
        one = [facts["profile_version"]] if "profile_version" in facts else []
        return cls(
            seed=facts["seed"],
            model=facts["model"],
            adapter_version=facts.get("adapter_version"),
            profile_versions=tuple(facts.get("profile_versions", one)),
            prompt=facts.get("prompt"),
        )

    @property
    def as_xmp(self) -> str:
        """An XMP packet: IPTC's properties by their names, the other facts under `ppd`."""
        said = {
            "xmp:CreatorTool": SOFTWARE,
            "Iptc4xmpExt:DigitalSourceType": DIGITAL_SOURCE_TYPE,
            "Iptc4xmpExt:AISystemUsed": self.model,
        }
        for name, fact in self.facts.items():
            if name == "prompt":
                said["Iptc4xmpExt:AIPromptInformation"] = fact
            else:
                said[f"ppd:{name}"] = fact if isinstance(fact, str) else json.dumps(fact)
        spaces = "".join(f" xmlns:{name}={quoteattr(uri)}" for name, uri in _NAMESPACES.items())
        words = "".join(f" {name}={_quoted(text)}" for name, text in said.items())
        return (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description rdf:about=""{spaces}{words}/>'
            '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
        )


def _quoted(text: str) -> str:
    """As an attribute's value; what XML cannot hold becomes U+FFFD."""
    return quoteattr(_NOT_XML.sub("\ufffd", text))
