"""Which people a trial serves: a stable share, exact to binomial noise, drawn anew each time."""

import math
import subprocess
import sys

from service.core.proof.serving import Serving, drawn
from service.infra.sql.tables import new_id

PEOPLE = [f"{i:032x}" for i in range(20_000)]


def share_of(people: list[str], serving: Serving) -> set[str]:
    return {person for person in people if serving.adapter_of(person) == serving.trial}


def within_noise(count: int, n: int, p: float) -> bool:
    """Four standard deviations of a binomial: one test in 16,000 fails by chance, were it drawn."""
    return abs(count - n * p) <= 4 * math.sqrt(n * p * (1 - p))


def test_a_share_is_exact_to_binomial_noise() -> None:
    for people in (PEOPLE, [new_id() for _ in PEOPLE]):
        for trial in ("a" * 12, "b" * 12):
            for share in (0.01, 0.2, 0.5, 0.9):
                count = len(share_of(people, Serving(None, trial, share)))
                assert within_noise(count, len(people), share), (trial, share, count)


def test_who_is_in_a_share_stays_in_it_while_it_grows() -> None:
    small, large = (share_of(PEOPLE, Serving("f" * 12, "a" * 12, s)) for s in (0.2, 0.4))
    assert small < large


def test_trials_draw_independently() -> None:
    """A fifth of those in one share of a fifth are in another, and of those outside as well."""
    one, two = (share_of(PEOPLE, Serving(None, trial * 12, 0.2)) for trial in "ab")
    assert within_noise(len(one & two), len(one), 0.2)
    assert within_noise(len(two - one), len(PEOPLE) - len(one), 0.2)


def test_a_draw_is_the_same_in_every_process() -> None:
    code = "from service.core.proof.serving import drawn; print(drawn('a' * 12, '1' * 32))"
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        assert float(told) == drawn("a" * 12, "1" * 32)


def test_nobody_in_particular_takes_the_first() -> None:
    serving = Serving("f" * 12, "a" * 12, 0.999_999)
    assert serving.adapter_of(None) == "f" * 12
    assert serving.adapter_of("1" * 32) == "a" * 12
    assert Serving("f" * 12).adapter_of("1" * 32) == "f" * 12
    assert Serving(None, "a" * 12, 0.25).share_of(None) == 0.75
