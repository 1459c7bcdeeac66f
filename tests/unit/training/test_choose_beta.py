"""The paper's rule for beta."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.choose_beta import ChooseBetaConfig, RunScores, choose, choose_beta


def run(beta: float, **mean: float) -> RunScores:
    return RunScores(f"beta{beta}", beta, mean, dict.fromkeys(mean, 1.0))


def test_the_highest_mean_reward_is_chosen() -> None:
    choice = choose_beta(
        [run(0.1, pickscore=20.0), run(1.0, pickscore=21.5), run(2.0, pickscore=21.0)]
    )
    assert choice.best == 1
    assert choice.value_M == (20.0, 21.5, 21.0)


def test_no_reward_counts_more_for_its_unit() -> None:
    """One run gains 10 where scores vary by 100, the other 1 where they vary by 1."""
    sd = {"wide": 100.0, "narrow": 1.0}
    first = RunScores("first", 0.1, {"wide": 60.0, "narrow": 5.0}, sd)
    second = RunScores("second", 1.0, {"wide": 50.0, "narrow": 6.0}, sd)
    assert choose_beta([first, second]).best == 1
    assert choose_beta([first, second], "raw").best == 0
    assert choose_beta([first, second]).value_M == pytest.approx(((0.6 + 5) / 2, (0.5 + 6) / 2))


def test_of_equal_runs_the_one_closest_to_the_base_is_chosen() -> None:
    assert choose_beta([run(0.5, hps=1.0), run(2.0, hps=1.0), run(1.0, hps=1.0)]).best == 1


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no runs"),
        ([run(0.1, hps=1.0), run(1.0, clip=1.0)], "was scored by"),
        ([run(0.1, hps=float("nan"))], "not finite"),
        ([RunScores("a", 1.0, {"hps": 1.0}, {"hps": 0.0})], "never varies"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs: list[RunScores], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_beta(runs)


def write(path: Path, beta: float, mean: float, **changes: object) -> Path:
    record = {
        "beta": beta,
        "captions": 500,
        "seed": 0,
        "steps": 30,
        "guidance_scale": 4.0,
        "personalize_below": 1.0,
        "trained": {"user": "one_hot", "objective": "ppd"},
        "rewards": {"hps": {"mean": mean, "sd": 2.0}},
    }
    path.write_text(json.dumps(record | changes))
    return path


def test_the_command_reads_runs_and_writes_its_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [
        write(tmp_path / f"{beta}.json", beta, 20 - (beta - 1) ** 2) for beta in (0.1, 1.0, 2.0)
    ]
    choose(ChooseBetaConfig(runs=tuple(paths), out=tmp_path / "choice.json"))
    report = json.loads((tmp_path / "choice.json").read_text())
    assert (report["beta"], report["run"]) == (1.0, str(paths[1]))
    assert "<- best" in capsys.readouterr().out.splitlines()[1]


def test_runs_on_other_captions_or_of_another_row_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", 0.1, 20.0)
    other = write(tmp_path / "other.json", 1.0, 21.0, captions=100)
    with pytest.raises(ValueError, match="another captions"):
        choose(
            ChooseBetaConfig(
                runs=(
                    one,
                    other,
                )
            )
        )
    sft = write(tmp_path / "sft.json", 1.0, 21.0, trained={"user": "one_hot", "objective": "sft"})
    with pytest.raises(ValueError, match="another objective"):
        choose(
            ChooseBetaConfig(
                runs=(
                    one,
                    sft,
                )
            )
        )
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="not the scores of a run"):
        choose(ChooseBetaConfig(runs=(tmp_path / "bad.json",)))


def test_the_chosen_runs_adapter_is_put_where_the_next_job_looks(tmp_path: Path) -> None:
    for name in ("low", "high"):
        (tmp_path / f"{name}.safetensors").write_text(name)
    runs = tuple(
        write(tmp_path / f"{name}.json", beta, mean, adapter=str(tmp_path / f"{name}.safetensors"))
        for name, beta, mean in (("low", 0.1, 1.0), ("high", 1.0, 2.0))
    )
    choose(ChooseBetaConfig(runs=runs, adapter=tmp_path / "row" / "adapter.safetensors"))
    assert (tmp_path / "row" / "adapter.safetensors").read_text() == "high"
