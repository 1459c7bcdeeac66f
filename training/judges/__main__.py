"""START HERE: how often a judge says what people said, on choices whose answer is known.

    python -m training.judges --judge taste --data runs/mini/precompute --out FILE.json
    python -m training.judges --judge llava --data ... [--preset ...] [--weights_dir ...]
    PPD_JUDGE_KEY=... python -m training.judges --judge endpoint --url URL --model NAME --data ...

To be run, and reported, before the judge judges anything: a win rate says no more than its judge.
Each question is asked twice, in either order; inconsistent and unreadable answers are dropped and
counted. "taste" is the world's: people there choose by chance where they hardly see a difference,
so even their own taste does not foretell every choice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.user_encoder import UserEncoder
from training.configuration import Configuration, git_commit, parse_command_line
from training.judges.endpoint import EndpointJudge, EndpointSettings
from training.judges.judge import Judge, Question, ask_all, tally
from training.judges.known_choices import KnownChoice, TestSplit, known_choices
from training.judges.llava import LlavaJudge
from training.judges.taste import TasteJudge
from training.source_plan import config_of
from training.world.looks import Standardizer
from training.world.truth import GroundTruth

JudgeName = Literal["endpoint", "llava", "taste"]


class AccuracyConfig(Configuration):
    """data: a folder of training.precompute. url and model: of the endpoint, else from the
    environment (judges/endpoint.py), as its key is in any case. preset, weights_dir, device: of
    the local VLM, weights_dir also of the world's standardizer; None is what is shipped.
    workers: questions asked at a time, for an endpoint."""

    judge: JudgeName
    data: Path
    out: Path
    split: TestSplit = "unseen_users"
    people: int | None = None
    url: str | None = None
    model: str | None = None
    temperature: float = 1.0
    workers: int = 1
    preset: str = "mini"
    weights_dir: Path | None = None
    device: str = "cpu"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    config, _ = parse_command_line(AccuracyConfig, argv, __doc__, file_required=False)
    measure(config)


def measure(config: AccuracyConfig) -> dict[str, Any]:
    """Ask about every known choice; writes the json file `out` and returns what it holds.

    Raises JudgeError when an endpoint does not answer.
    """
    known = known_choices(config.data, config.split, config.people)
    right = [one.query.preferred for one in known]
    with ExitStack() as stack:
        judge_of = make_judge(config, stack)

        def questions() -> Iterator[tuple[Judge, Question]]:
            for one in known:
                yield judge_of(one), one.question()

        def progress(done: int) -> None:
            print(f"{done}/{len(known)}", flush=True)

        workers = config.workers if config.judge == "endpoint" else 1
        outcomes = list(ask_all(questions(), workers=workers, progress=progress))
        identity = judge_of(known[0]).identity
    report = {
        "judge": config.judge,
        "identity": identity,
        "data": str(config.data),
        "split": config.split,
        "commit": git_commit(),
        **tally(outcomes, right),
        "outcomes": outcomes,
        "right": right,
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(report, indent=2) + "\n")
    shown = {key: report[key] for key in ("share_right", "kept", "inconsistent", "unreadable")}
    print(json.dumps(shown, indent=2))
    return report


def make_judge(config: AccuracyConfig, stack: ExitStack) -> Callable[[KnownChoice], Judge]:
    """The judge of each person: one for all, or each their own taste.

    Raises ValueError when "taste" is asked about people who are not of the world.
    """
    if config.judge == "endpoint":
        settings = EndpointSettings.read(
            base_url=config.url, model=config.model, temperature=config.temperature
        )
        endpoint = stack.enter_context(EndpointJudge(settings))
        return lambda _: endpoint
    if config.judge == "llava":
        encoder = UserEncoder.load(config.preset, config.weights_dir, config.device)
        llava = LlavaJudge(encoder)
        return lambda _: llava
    path = config_of(config.data).truth
    if path is None:
        raise ValueError(f"{config.data} was made without the ground truth of people's tastes")
    truth = GroundTruth.load(path)
    standardizer = Standardizer.load((config.weights_dir or MINI_WEIGHTS_DIR) / "standardizer.json")
    return lambda one: TasteJudge(truth.taste(one.user), standardizer)


if __name__ == "__main__":
    main()
