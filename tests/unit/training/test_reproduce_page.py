"""docs/reproduce.md: what its blocks run; the configurations it names are there and whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.rehearsal.page import commands
from training.augmented_captions.pickapic import PickapicCaptionsConfig
from training.check_downloads import DownloadsConfig
from training.classify_users.classify_config import ClassifyConfig
from training.dpo.dpo_config import DpoConfig
from training.jobs.configuration import read_configuration
from training.precompute.precompute_config import PrecomputeConfig
from training.sweep import SweepConfig
from training.synthetic_users.__main__ import COMMANDS
from training.win_rates.win_rates_config import WinRatesConfig

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reproduce.md"
KINDS = {
    "training.precompute": PrecomputeConfig,
    "training.check_downloads": DownloadsConfig,
    "training.classify_users": ClassifyConfig,
    "training.train_dpo": DpoConfig,
    "training.win_rates": WinRatesConfig,
    "training.augmented_captions.pickapic": PickapicCaptionsConfig,
    "training.sweep": SweepConfig,
} | {f"training.synthetic_users {name}": kind for name, (_, kind) in COMMANDS.items()}
RUN = re.compile(r"-m (training[\w.]*(?: (?:relabel|score|evaluate|interpolate))?) --config (\S+)")


@pytest.mark.parametrize("preset", ["stable-cascade-1b", "stable-cascade"])
@pytest.mark.parametrize("overrides", [None, ROOT / "tests" / "rehearsal" / "overrides.yaml"])
def test_every_command_of_the_page_has_its_configuration(
    preset: str, overrides: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PPD_PRESET", preset)
    if overrides is not None:
        monkeypatch.setenv("PPD_OVERRIDES", str(overrides))
    found = set(RUN.findall(PAGE.read_text()))
    assert {job for job, _ in found} == set(KINDS) - {"training.synthetic_users pairs"}
    for job, path in found:
        read_configuration(KINDS[job], Path(path), {})


def test_a_command_goes_on_where_its_line_says_so(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nexport A=1\n# a note\n\nfirst --x \\\n  --y\n```\ntext\n"
        "```sh download\nnever\n```\n```sh\nlast\n```\n"
    )
    assert commands(page) == ["export A=1", "first --x \\\n  --y", "last"]
