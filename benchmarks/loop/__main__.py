"""START HERE: the loop, once around, against a running service, by commands alone.

    make loop            or: python -m benchmarks.loop --out runs/loop

Simulated people answer and contribute; their answers are exported, trained on, and the adapter
that comes of it is served to half of the people beside the first one, until their blind choices
say which is better. The first adapter is a weak one, on purpose: a few steps on a few people.
docs/loop.md says what each stage does by hand. Ends with status 1 unless the new adapter won.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.loop.commands import Commands
from benchmarks.loop.people import ASKED, Crowd, Person, everybody, prompts
from benchmarks.service.end_to_end import json_of
from training.reports.tables import markdown_table

CONFIGS = Path("training/configs")
FIRST_CONTRIBUTOR, FIRST_NEWCOMER = 9_000_000, 5_000
QUIZ_ANSWERS, OWN_PAIRS, MADE_PAIRS = 8, 4, 1
GROUP = 16
"""People who choose before anybody looks at the wins again."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/loop"), help="A new folder.")
    parser.add_argument("--contributors", type=int, default=40)
    parser.add_argument("--choosers", type=int, default=112, help="People who choose, at most.")
    parser.add_argument("--steps", type=int, default=150, help="Of the new adapter's training.")
    parser.add_argument(
        "--strangers", action="store_true", help="Only people who were never trained on choose."
    )
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    commands = Commands(given.out.resolve())
    share = around(commands, given.contributors, given.choosers, given.steps, given.strangers)
    rows = [[one.what, one.came, f"{one.seconds:.0f}"] for one in commands.stages]
    print(markdown_table(["what", "what came of it", "seconds"], rows))
    minutes = sum(one.seconds for one in commands.stages) / 60
    print(f"{minutes:.1f} minutes, {cpu_seconds():.0f} s of one processor")
    (given.out / "report.json").write_text(
        json.dumps({"stages": [vars(one) for one in commands.stages], "share": share}, indent=1)
    )
    raise SystemExit(share["better"] != "trial")


def cpu_seconds() -> float:
    """What this process and all that it ran to their end took."""
    took = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in took)


def around(
    commands: Commands, contributors: int, choosers: int, steps: int, strangers: bool
) -> dict[str, Any]:
    """Once around; gives what the service says of the two adapters."""
    with commands.serving() as client:
        crowd = Crowd(client)
        people = list(crowd.people("train", contributors, FIRST_CONTRIBUTOR))
        with commands.stage("people answer and contribute") as stage:
            everybody(people, lambda person: answer_and_contribute(crowd, person))
            stage.came = f"{len(people)} people, {QUIZ_ANSWERS + OWN_PAIRS} answers each"
        export(commands)
        precompute(commands, "first", "--people", "16")
        first = train(commands, "first", "--steps", "8", "--export_strength", "1")
        commands.ppd("adapters", "activate", str(first))
        with commands.stage("people choose between what it made") as stage:
            asked = prompts(1, MADE_PAIRS)
            everybody(people, lambda person: crowd.compare_made(person, asked))
            stage.came = f"{len(people) * len(asked)} blind choices, contributed too"
        crowd.contribute(people[0], yes=False)
        json_of(client.delete(f"/users/{people[1].user_id}"))
        export(commands)
        precompute(commands, "second")
        second = train(commands, "second", "--steps", str(steps))
        with commands.stage("half of the people get it") as stage:
            stage.came = commands.ppd("adapters", "activate", str(second), "--share", "0.5").strip()
        newcomers = list(crowd.people("test", choosers, FIRST_NEWCOMER))
        known = [] if strangers else [people[0], *people[2:]]
        share = choose(commands, crowd, [*known, *newcomers][:choosers])
        with commands.stage("the better one is promoted") as stage:
            if share["better"] == "trial":
                stage.came = commands.ppd("adapters", "activate", share["trial"]).strip()
            else:
                stage.came = "none: the new one is not known to be better"
        print(commands.ppd("wins", "--each", str(ASKED)), flush=True)
    return share


def answer_and_contribute(crowd: Crowd, person: Person) -> None:
    """The quiz, own pairs, and the decision."""
    crowd.contribute(person)
    crowd.answer_quiz(person, QUIZ_ANSWERS)
    crowd.compare_own(person, OWN_PAIRS)
    crowd.wait_for_profile(person)


def choose(commands: Commands, crowd: Crowd, waiting: Sequence[Person]) -> dict[str, Any]:
    """Group by group people choose blind, until the wins tell which adapter is better.

    Who is new answers the quiz first.
    """
    asked = prompts(2)
    share: dict[str, Any] = {}

    def one(person: Person) -> None:
        if person.is_new:
            crowd.answer_quiz(person, QUIZ_ANSWERS)
            crowd.wait_for_profile(person)
        crowd.compare_made(person, asked)

    with commands.stage("people choose blind between their picture and the base") as stage:
        for start in range(0, len(waiting), GROUP):
            everybody(waiting[start : start + GROUP], one)
            report = json_of(crowd.client.get("/admin/wins", params={"each": ASKED}))
            share = report["share"]
            print(f"    {told(share)}", flush=True)
            if share["better"] is not None:
                break
        stage.came = told(share)
    return share


def told(share: dict[str, Any]) -> str:
    arms = [
        f"{name} {share[arm]['wins'] or 0:.3f} ({share[arm]['observed']} people)"
        for name, arm in (("first", "of_first"), ("new", "of_trial"))
    ]
    low, high = share["interval"] or (-1.0, 1.0)
    return (
        f"{', '.join(arms)}, difference {share['difference'] or 0:+.3f} [{low:+.3f}, {high:+.3f}]"
    )


def export(commands: Commands) -> None:
    with commands.stage("export") as stage:
        stage.came = "; ".join(
            commands.ppd("choices", "export", str(commands.folder / "choices")).splitlines()
        )


def precompute(commands: Commands, name: str, *words: str) -> None:
    with commands.stage(f"precompute, {name}") as stage:
        config, out = CONFIGS / "mini_contributed.yaml", commands.folder / f"precompute_{name}"
        commands.job(
            "precompute",
            *("--config", str(config), "--data", str(commands.folder / "choices")),
            *("--output_dir", str(out), *words),
        )
        counts = json.loads((out / "summary.json").read_text())
        splits = counts["splits"]
        stage.came = (
            f"{counts['read']['pairs']} decided pairs of {counts['read']['users']} people, "
            f"{splits['train_pairs']} to train on, {counts['encoded']['support_sets']} sets read; "
            f"{splits['people_of_few_pairs']} people of few pairs"
        )


def train(commands: Commands, name: str, *words: str) -> Path:
    with commands.stage(f"train, {name}") as stage:
        config, out = CONFIGS / "mini_contributed_dpo.yaml", commands.folder / f"adapter_{name}"
        said = commands.job(
            "train_dpo",
            *("--config", str(config), "--output_dir", str(out)),
            *("--data_dir", str(commands.folder / f"precompute_{name}"), *words),
        )
        stage.came = last_measured(said, out)
    return out / "adapter.safetensors"


def last_measured(said: str, out: Path) -> str:
    """The last step, and how often it orders held-out pairs as their person did."""
    last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    version = re.findall(r"sha256 ([0-9a-f]{12})", said)
    accuracy = last["validation_accuracy"]
    return (
        f"adapter {version[-1] if version else '?'}, {last['step']} steps, accuracy {accuracy:.3f}"
    )


if __name__ == "__main__":
    main()
