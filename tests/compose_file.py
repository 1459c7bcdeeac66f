"""docker-compose.yml as tests read it: profiles, and our own commands in it."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RUN = ["python", "-m", "service.cli"]


def services(profile: str | None = None) -> dict[str, dict[str, Any]]:
    """The services of a profile, or all of them, with every anchor filled in."""
    parsed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return {
        name: service
        for name, service in parsed.items()
        if profile is None or profile in service["profiles"]
    }


def our_command(name: str) -> list[str]:
    """What a service gives to `ppd`."""
    words = [str(word) for word in services()[name]["command"]]
    assert words[: len(RUN)] == RUN
    return words[len(RUN) :]
