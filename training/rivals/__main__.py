"""START HERE: ways to personalise, side by side in the world, on the same pairs, steps and people.

    python -m training.rivals --config training/configs/mini_rivals.yaml

1. Readers are fitted on known people's answers (arms.py), and what they tell of unseen people's
   tastes is measured (told.py).
2. All arms that need an adapter are trained side by side, on the same batches (together.py).
3. Each arm's strength is chosen on people of the validation seeds, by one rule (methods.py).
4. People of the test seeds answer the quiz's four pairs; every arm paints their prompts from the
   same seeds, and their true tastes say which picture they prefer: each arm's or the base's, and
   each arm's or each other's.

Run again, it goes on where it was interrupted. Writes OUT/report.json and prints the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import torch

from ppd_model.user_encoder import UserEncoder
from training.evaluate.painting import Judge
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.reports.statistics import as_number, as_shares
from training.reports.tables import markdown_table
from training.rivals.arms import Arms
from training.rivals.methods import of_methods, strengths_of_methods
from training.rivals.paintings import Paintings, against_base, over
from training.rivals.rivals_config import RivalsConfig
from training.rivals.together import train_together
from training.rivals.told import told


def rivals(config: RivalsConfig) -> dict[str, Any]:
    """Train, choose, paint, compare; returns the report.

    Raises ValueError for adapters of another user encoder, and for a folder that holds what was
    made with something else.
    """
    torch.set_num_threads(config.threads)
    encoder = UserEncoder.load(config.preset, config.weights_dir)
    arms = Arms.fit(config, encoder)
    what_is_told = told(arms)
    print(table_of_told(what_is_told), flush=True)
    if wanted := arms.trainings():
        train_together(wanted, arms.fitted_on)
    arms.check_adapters()
    save_resolved(config, config.out)
    judge = Judge.load(config.weights_dir, config.classifier)
    validation = Paintings.of(arms, judge, "validate", config.validation_people)
    tried = {name: strengths_of(validation, name, config) for name in config.arms}
    chosen = strengths_of_methods(config, tried)
    test = Paintings.of(arms, judge, "test", config.people)
    base = test.of_base()
    seen = {name: test.of_arm(name, strength) for name, strength in chosen.items()}
    report: dict[str, Any] = {
        "commit": git_commit(),
        "encoder_version": encoder.encoder_version,
        "people": config.people,
        "prompts_each": config.prompts,
        "training": {"steps": config.training_steps, "lr": config.training_lr},
        "seed": config.seed,
        "told": what_is_told,
        "arms": {
            name: {
                **arm.model_dump(mode="json"),
                "strength": chosen[name],
                "base": against_base(test, seen[name], base),
                "validation": {str(strength): of for strength, of in tried[name].items()},
            }
            for name, arm in config.arms.items()
        },
        "over": {
            f"{ours} over {theirs}": over(test, seen[ours], seen[theirs])
            for ours, theirs in permutations(config.arms, 2)
        },
        "methods": of_methods(config, test, seen, base),
    }
    write_json(config.out / "report.json", report)
    print(table_against_base(report))
    print(table_of_matches(report))
    print(table_of_methods(report["methods"]))
    return report


def strengths_of(
    validation: Paintings, name: str, config: RivalsConfig
) -> dict[float, dict[str, Any]]:
    """What each strength of an arm gives, up to the first that loses content."""
    if config.arms[name].reads == "words":
        return {1.0: against_base(validation, validation.of_arm(name, 1.0), validation.of_base())}
    found: dict[float, dict[str, Any]] = {}
    for strength in config.strengths:
        seen = validation.of_arm(name, strength)
        found[strength] = against_base(validation, seen, validation.of_base())
        if found[strength]["content_kept"]["mean"] < config.content_kept:
            break
    return found


def table_of_told(found: Mapping[str, Mapping[str, float]]) -> str:
    """What each reader tells of a taste, as a Markdown table."""
    rows = [[name, "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**of)] for name, of in found.items()]
    return markdown_table(["read by", "cosine with the true taste"], rows)


def table_against_base(report: Mapping[str, Any]) -> str:
    """Every arm against the base, as a Markdown table."""
    rows = []
    for name, arm in report["arms"].items():
        of = arm["base"]
        rows.append(
            [
                name,
                f"{arm['strength']:g}",
                as_shares(of["wins"]),
                as_number(of["gain_sd"]),
                as_shares(of["content_kept"]),
            ]
        )
    return markdown_table(["", "strength", "wins over base", "gain, sd", "content kept"], rows)


def table_of_methods(methods: Mapping[str, Any]) -> str:
    """Methods of several training seeds, as a Markdown table."""
    rows = [
        [f"{name} over base", as_shares(of["wins"]), as_number(of["gain_sd"])]
        for name, of in methods["base"].items()
    ]
    rows += [[match, as_shares(found), ""] for match, found in methods["over"].items()]
    return markdown_table(["over people and training seeds", "wins", "gain, sd"], rows)


def table_of_matches(report: Mapping[str, Any]) -> str:
    """How often the row's arm wins over the column's, as a Markdown table."""
    names: Sequence[str] = list(report["arms"])
    rows = [
        [
            ours,
            *(
                "" if ours == theirs else as_shares(report["over"][f"{ours} over {theirs}"])
                for theirs in names
            ),
        ]
        for ours in names
    ]
    return markdown_table(["over", *names], rows)


if __name__ == "__main__":
    run_job(rivals, RivalsConfig, __doc__)
