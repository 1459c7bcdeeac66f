"""How far a picture of `mini` lies from the same picture in company and on other processors.

    python -m benchmarks.same_picture all [--rounds 7] [--pictures 64] [--out FILE.json]
    python -m benchmarks.same_picture price | company | processors | loading

* price: seconds of float64 / of float32, alternating: one picture, eight at once, one reading
* company: pictures made with seven others / each alone, both by the engine
* processors: pictures and a reading under the settings of tests/any_cpu.sh / under none of them
* loading: seconds to load a part of 1.1 GB with its tensors moved to where torch's lie / as in the
  file

Everything but loading is of the shipped weights, in both precisions; price and company with one
thread and with two. Differences are in grey levels of 255, before rounding to bytes and after it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.rounds import WAIT_S, alternate, alternate_steps, over, report_of, show, spread
from benchmarks.same_picture_digests import ROOT, four_pairs, requests
from ppd_model.engine.admission import StepCurve
from ppd_model.engine.engine import Engine
from ppd_model.files import safetensor_files as weights
from ppd_model.nets.stage_c import build_unet
from ppd_model.pipeline import Pipeline
from ppd_model.presets import get_preset
from ppd_model.types import ImageRequest
from ppd_model.user_encoder import UserEncoder

DTYPES = ("float32", "float64")
THREADS = (1, 2)
AT_ONCE = 8
SHAPE = (16, 8, 8)
STEPS = 20

Levels = dict[int, npt.NDArray[np.float64]]
"""Seed -> a picture's values before rounding, in grey levels, 3 x H x W."""


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", choices=[*ROWS, "all", "values"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--dtype", choices=DTYPES, help="of `values`, which `processors` calls")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    if given.row == "values":
        write_values(given.dtype, given.out)
        return
    names = list(ROWS) if given.row == "all" else [given.row]
    rows = {name: ROWS[name](given.rounds, given.pictures) for name in names}
    show(report_of({"rounds": given.rounds, "pictures": given.pictures}, rows), given.out)


def price(rounds: int, pictures: int) -> dict[str, Any]:
    """Medians, extremes and ratios of float64 over float32."""
    rows: dict[str, Any] = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        engines = {dtype: free_engine(pipeline_in(dtype), threads) for dtype in DTYPES}
        encoders = {dtype: UserEncoder.load("mini", dtype=dtype) for dtype in DTYPES}
        for what, count in (("one picture", 1), ("eight pictures", AT_ONCE)):
            sides = {dtype: partial(make, engine) for dtype, engine in engines.items()}
            seconds = alternate(sides, partial(alike, count), rounds)
            rows[f"{what}, {threads} threads"] = compared(seconds)
        steps = {dtype: reading(encoder) for dtype, encoder in encoders.items()}
        rows[f"one reading, {threads} threads"] = compared(alternate_steps(steps, rounds, 1))
        for engine in engines.values():
            engine.close()
    return rows


def compared(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each side, and float64 over float32 in each round."""
    ratio = over(seconds["float64"], seconds["float32"])
    return {name: spread(values) for name, values in (seconds | {"ratio": ratio}).items()}


def company(rounds: int, pictures: int) -> dict[str, Any]:
    """How far pictures made eight at once lie from each made alone."""
    rows = {}
    asked = different(pictures)
    for dtype in DTYPES:
        for threads in THREADS:
            torch.set_num_threads(threads)
            pipeline = pipeline_in(dtype)
            made = recorded(pipeline)
            with free_engine(pipeline, threads) as engine:
                for request in asked:
                    make(engine, [request])
                alone = dict(made)
                for first in range(0, len(asked), AT_ONCE):
                    make(engine, asked[first : first + AT_ONCE])
            rows[f"{dtype}, {threads} threads"] = apart(made, alone)
    return rows


def processors(rounds: int, pictures: int) -> dict[str, Any]:
    """How far pictures and a reading lie from those of this processor as it is."""
    rows: dict[str, Any] = {}
    listed = subprocess.run(  # noqa: S603
        [ROOT / "tests" / "any_cpu.sh", "--list"], check=True, capture_output=True, text=True
    )
    settings = {name: variables for name, *variables in map(str.split, listed.stdout.splitlines())}
    for dtype in DTYPES:
        own, own_emb_D, own_text = values_under([], dtype)
        for name, variables in settings.items():
            made, emb_D, text = values_under(variables, dtype)
            rows[f"{dtype}, {name}"] = apart(made, own) | {
                "embedding": float(np.abs(emb_D - own_emb_D).max()),
                "same text": text == own_text,
            }
    return rows


def values_under(variables: Sequence[str], dtype: str) -> tuple[Levels, Any, str]:
    """Pictures before rounding, embedding and text, by a process with these variables."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(v.split("=") for v in variables)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "values.npz"
        command = [sys.executable, "-m", "benchmarks.same_picture", "values"]
        command += ["--dtype", dtype, "--out", path]
        subprocess.run(command, check=True, env=environment, cwd=ROOT)  # noqa: S603
        with np.load(path) as found:
            made = {int(key): found[key] for key in found.files if key.isdigit()}
            return made, found["embedding"], str(found["text"])


def write_values(dtype: str, out: Path) -> None:
    """What `values_under` reads: a reading, and pictures of it, each made alone, by their seeds."""
    read = UserEncoder.load("mini", dtype=dtype).encode(four_pairs())
    pipeline = pipeline_in(dtype)
    made = recorded(pipeline)
    for seed, request in enumerate(requests(read.user_emb_D).values()):
        pipeline.generate([replace(request, seed=seed)])
    pictures = {str(seed): levels for seed, levels in made.items()}
    np.savez(out, embedding=read.user_emb_D, text=read.transcript, **pictures)


def loading(rounds: int, pictures: int) -> dict[str, Any]:
    """Seconds of reading Stage C of the published width with six residual groups."""
    preset = get_preset("stable-cascade-1b")
    few = dict(down_num_layers_per_block=(1, 3), up_num_layers_per_block=(3, 1))
    preset = replace(preset, stage_c=preset.stage_c | few)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_unet(preset).state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stage_c.safetensors"
        save_file({key: torch.full(shape, 0.01) for key, shape in shapes.items()}, path)
        files = weights.WeightFiles((path,))
        moved = weights.aligned

        def load(where: Callable[[Tensor], Tensor]) -> Tensor:
            weights.aligned = where
            with torch.device("meta"):
                unet = build_unet(preset)
            weights.assign_weights(unet, files, dtype=torch.float32)
            weights.aligned = moved
            return next(unet.parameters())

        sides = {"moved": partial(load, moved), "as in the file": partial(load, lambda t: t)}
        seconds = alternate_steps(sides, rounds, 1)
        size = path.stat().st_size
    ratio = over(seconds["moved"], seconds["as in the file"])
    return {"bytes": size} | {n: spread(v) for n, v in (seconds | {"ratio": ratio}).items()}


class FreeCurve(StepCurve):
    """All that come may join, whatever is measured."""

    def observe(self, rows: int, seconds: float) -> None:
        """Learns nothing."""


def free_engine(pipeline: Pipeline, threads: int) -> Engine:
    """One in which eight jobs share every step."""
    return Engine(pipeline, threads=threads, curves={SHAPE: FreeCurve({1: 1.0, 16: 1.0})})


def pipeline_in(dtype: str) -> Pipeline:
    """The shipped weights."""
    return Pipeline.load("mini", dtype=dtype)


def make(engine: Engine, asked: Sequence[ImageRequest]) -> None:
    """Each a job of its own, all at once."""
    for handle in [engine.submit([request]) for request in asked]:
        handle.result(WAIT_S)


def reading(encoder: UserEncoder) -> Callable[[], Tensor]:
    """Reads four pairs."""
    pairs = four_pairs()
    return lambda: torch.from_numpy(encoder.encode(pairs).user_emb_D)


def alike(count: int, turn: int) -> list[ImageRequest]:
    """Personal and guided, of as many steps as by default."""
    emb_D = read_embeddings()[0]
    return [
        ImageRequest("a boat at the sea", AT_ONCE * turn + i, user_emb_D=emb_D, steps=STEPS)
        for i in range(count)
    ]


def different(count: int) -> list[ImageRequest]:
    """Requests that differ in prompt, person, strength, steps, guidance and negative prompt."""
    subjects = ("flower", "fish", "mushroom", "boat", "house", "rocket", "balloon", "tree")
    settings = ("in the mountains", "in the hills", "at the sea", "in the town", "at night")
    rng, people = np.random.default_rng(1), read_embeddings()
    return [
        ImageRequest(
            f"a {subjects[i % 8]} {settings[int(rng.integers(5))]}",
            i,
            user_emb_D=people[i % len(people)] if i % 4 else None,
            strength=(1.0, 0.5, 2.0)[i % 3],
            negative_prompt="" if i % 5 else "a boat at night",
            steps=int(rng.integers(5, 31)),
            guidance_scale=(1.0, 4.0, 7.0)[int(rng.integers(3))],
        )
        for i in range(count)
    ]


@cache
def read_embeddings() -> list[npt.NDArray[np.float32]]:
    """Of three people: four pairs of the pool, answered in three ways."""
    encoder, pairs = UserEncoder.load("mini"), four_pairs()
    return [
        encoder.encode([replace(pair, preferred=answer) for pair in pairs]).user_emb_D
        for answer in (0, 1)
    ] + [encoder.encode(pairs).user_emb_D]


def recorded(pipeline: Pipeline) -> Levels:
    """Filled, from now on, with what the pipeline's decoder gives, by the seed of the row."""
    made: Levels = {}
    forward = pipeline.decoder.forward

    def record(
        latent_BCHW: Tensor,
        pooled_B1D: Tensor,
        generators: Sequence[torch.Generator],
        before_step: Callable[[], None] | None = None,
    ) -> Tensor:
        pixels_BCHW = forward(latent_BCHW, pooled_B1D, generators, before_step)
        for pixels_CHW, generator in zip(pixels_BCHW, generators, strict=True):
            made[generator.initial_seed()] = (pixels_CHW * 255).double().numpy()
        return pixels_BCHW

    pipeline.decoder.forward = record  # type: ignore[method-assign]
    return made


def apart(made: Levels, expected: Levels) -> dict[str, float]:
    """Greatest differences, and how much differs in bytes."""
    assert made.keys() == expected.keys()
    before = [float(np.abs(made[seed] - expected[seed]).max()) for seed in made]
    after = [np.abs(made[seed].round() - expected[seed].round()) for seed in made]
    return {
        "pictures": len(made),
        "pictures whose bytes differ": sum(bool(difference.any()) for difference in after),
        "bytes that differ, of a million": float(np.mean(np.array(after) > 0) * 1e6),
        "greatest, before rounding": max(before),
        "greatest, in bytes": max(int(difference.max()) for difference in after),
    }


ROWS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "price": price,
    "company": company,
    "processors": processors,
    "loading": loading,
}


if __name__ == "__main__":
    main()
