"""START HERE: the paper's experiments with synthetic users (5.1), in the order of their commands.

    python -m training.synthetic_users pairs       --config FILE [--resume]
    python -m training.synthetic_users relabel     --config FILE
    python -m training.train_dpo                   --config FILE     (once for each row of Table 1)
    python -m training.synthetic_users score       --config FILE [--resume]  (for choosing beta)
    python -m training.synthetic_users evaluate    --config FILE [--resume]
    python -m training.synthetic_users interpolate --config FILE [--resume]

pairs: the base model paints pairs of its own, to be relabelled beside others or in their place.
relabel: three users, each of whom likes what one reward likes, answer the pairs anew; goes on with
the scores it finds. score: one adapter's rewards on validation captions, which
`python -m training.choose_beta` compares. evaluate: Table 1 and Figure 3. interpolate: Figure 4.
`accelerate launch -m` in the place of `python -m` shares relabel, score, evaluate and interpolate
among processes; what they write is the same, however many they are.

Any value of the configuration can be given as --key VALUE; COMMAND --help says which there are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from accelerate import PartialState

from training.jobs.command_line import exit_with, run_job
from training.jobs.configuration import Configuration
from training.synthetic_users.comparison import (
    EvaluateConfig,
    InterpolateConfig,
    evaluate,
    interpolate,
)
from training.synthetic_users.pairs.generated_pairs import GeneratedPairsConfig, generate_pairs
from training.synthetic_users.pairs.relabel_command import RelabelConfig, make_relabelled
from training.synthetic_users.validation_scores import ScoreConfig, score

COMMANDS: dict[str, tuple[Callable[..., object], type[Configuration]]] = {
    "pairs": (generate_pairs, GeneratedPairsConfig),
    "relabel": (make_relabelled, RelabelConfig),
    "score": (score, ScoreConfig),
    "evaluate": (evaluate, EvaluateConfig),
    "interpolate": (interpolate, InterpolateConfig),
}


def main(argv: Sequence[str]) -> None:
    """Command line: the first word says which experiment."""
    if argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return
    if not argv or argv[0] not in COMMANDS:
        given = repr(argv[0]) if argv else "nothing"
        exit_with(f"{given} where a command was expected: {', '.join(COMMANDS)}")
    run_job(*COMMANDS[argv[0]], __doc__, argv[1:])
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
