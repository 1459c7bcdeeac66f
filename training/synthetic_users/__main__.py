"""START HERE: the paper's experiments with synthetic users (5.1), in the order of their commands.

    python -m training.synthetic_users pairs       --config FILE [--resume]
    python -m training.synthetic_users relabel     --config FILE
    python -m training.train_dpo                   --config FILE     (once for each row of Table 1)
    python -m training.synthetic_users score       --config FILE     (for choosing beta)
    python -m training.synthetic_users evaluate    --config FILE [--resume]
    python -m training.synthetic_users interpolate --config FILE [--resume]

pairs: the base model paints pairs of its own, to be relabelled beside others or in their place.
relabel: three users, each of whom likes what one reward likes, answer the pairs anew; goes on with
the scores it finds. score: one adapter's rewards on validation captions, which
`python -m training.choose_beta` compares. evaluate: Table 1 and Figure 3. interpolate: Figure 4.

Any value of the configuration can be given as --key VALUE; COMMAND --help says which there are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from training.jobs.command_line import exit_with, parse_command_line, run_command
from training.synthetic_users.comparison import (
    EvaluateConfig,
    InterpolateConfig,
    evaluate,
    interpolate,
)
from training.synthetic_users.pairs.generated_pairs import GeneratedPairsConfig, generate_pairs
from training.synthetic_users.pairs.relabel_command import RelabelConfig, make_relabelled
from training.synthetic_users.validation_scores import ScoreConfig, score


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: the first word says which experiment."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return
    if not words or words[0] not in _COMMANDS:
        given = repr(words[0]) if words else "nothing"
        exit_with(f"{given} where a command was expected: {', '.join(_COMMANDS)}")
    _COMMANDS[words[0]](words[1:])


def _pairs(words: Sequence[str]) -> None:
    config, resume = parse_command_line(GeneratedPairsConfig, words, __doc__)
    print(f"complete: {generate_pairs(config, resume)}")


def _relabel(words: Sequence[str]) -> None:
    config, _ = parse_command_line(RelabelConfig, words, __doc__, resumable=False)
    make_relabelled(config)


def _score(words: Sequence[str]) -> None:
    config, _ = parse_command_line(ScoreConfig, words, __doc__, resumable=False)
    score(config)


def _evaluate(words: Sequence[str]) -> None:
    config, resume = parse_command_line(EvaluateConfig, words, __doc__)
    evaluate(config, resume)


def _interpolate(words: Sequence[str]) -> None:
    config, resume = parse_command_line(InterpolateConfig, words, __doc__)
    interpolate(config, resume)


_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "pairs": _pairs,
    "relabel": _relabel,
    "score": _score,
    "evaluate": _evaluate,
    "interpolate": _interpolate,
}

if __name__ == "__main__":
    run_command(main)
