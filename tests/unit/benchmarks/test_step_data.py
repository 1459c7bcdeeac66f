"""What the benchmark of a step's data measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.step_data import measure
from tests.tiny_training import tiny_config, tiny_parts, write_world


def test_every_side_takes_every_round_and_data_held_in_memory_are_the_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path)
    with tiny_parts():
        found = measure(tiny_config(tmp_path, tmp_path / "out"), rounds=2, steps=1)
    for kind in ("wall", "processor"):
        assert found["step_s"][kind].keys() == {"held", "ahead", "in turn"}
        assert len(found["rounds"][f"ahead / held, {kind}"]) == 2
        assert all(ratio > 0 for ratio in found["rounds"][f"in turn / held, {kind}"])
    assert [goal["reach"] for goal in found["goals"]] == [1.05, 1.05]
    assert not (tmp_path / "out").exists()
