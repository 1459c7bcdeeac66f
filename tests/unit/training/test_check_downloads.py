"""What docs/reproduce.md has downloaded is looked at before the first long job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_pickapic import row, write
from tests.tiny_rewards import write_rewards
from training.check_downloads import DownloadsConfig, check


@pytest.fixture
def config(tmp_path: Path) -> DownloadsConfig:
    for number in range(3):
        rows = [row(1, f"c{number}", f"{number}a", f"{number}b", 0)]
        write(tmp_path / "data" / f"train-{number:05d}-of-00003-0123456789abcdef.parquet", rows)
    (tmp_path / "parti.tsv").write_text("Prompt\tCategory\na boat\tArts\n")
    write_rewards(tmp_path / "rewards")
    return DownloadsConfig(
        data={"train": str(tmp_path / "data" / "train-*.parquet")},
        prompts=(str(tmp_path / "parti.tsv"),),
        rewards=("clip", "aesthetic", "hps", "pickscore"),
        rewards_dir=tmp_path / "rewards",
        rewards_narrow=True,
    )


def test_what_is_whole_is_counted(
    config: DownloadsConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    check(config)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6
    assert all(line.startswith("ok") for line in said)
    assert "3 files, 3 rows" in said[0]
    assert "1 prompts" in said[1]


def test_every_fault_is_named_and_the_others_are_looked_at_all_the_same(
    config: DownloadsConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next((tmp_path / "data").glob("train-00001-*")).unlink()
    (tmp_path / "rewards" / "HPSv2" / "HPS_v2.1_compressed.pt").unlink()
    with pytest.raises(SystemExit) as ended:
        check(config)
    assert ended.value.code == 1
    faults = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAULT")]
    assert len(faults) == 2
    assert "1 files missing, the first is train-00001-of-00003" in faults[0]
    assert "HPS_v2.1_compressed.pt" in faults[1]
