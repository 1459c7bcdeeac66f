"""The engine against what one would write without it; both sides alternate in one process.

    python -m benchmarks.engine throughput [--model bench|mini] [--rounds 7] [--threads 1]
    python -m benchmarks.engine lone | first-step | poisson | compute-bound | constants | adapter
    python -m benchmarks.engine stock | compiled [--device cuda] | sampling --model mini
    python -m benchmarks.engine all [--out FILE.json] [--plot FILE.png]

* throughput: 8 jobs at once, pictures a second, engine / plain serial loop
* lone: seconds of one job by itself, engine / plain loop
* first-step: a request arrives while a batch of 4 of 20 steps runs; p95 of its wait for its first
  step, request-level batching / engine
* poisson: arrivals at 0.9 of the plain loop's capacity, 10 to 40 steps; mean and p95 latency,
  request-level batching / engine, and first come, first served / engine
* compute-bound: the same arrivals on a model that passes its rows one by one; mean latency, engine
  / first come, first served
* stock: 8 jobs at once, pictures a second, the fastest engine / diffusers' own prior pipeline, one
  at a time and without the adapter
* sampling: 8 jobs at once, pictures a second, by the preset's own sampler in Stages C and B / by 20
  steps of ddpm guided throughout and 6 of Stage B, and / diffusers' own prior pipeline with those
* compiled: seconds of one job by itself, eager / compiled blocks (on a GPU in CUDA graphs)
* constants: one step without / with the constant keys and values, adapter on. Without them a step
  is the network's own forward, which makes the text's and the user's anew each time, as diffusers'
  pipelines and adapters do; "text alone" makes only the text's anew
* adapter: one step with / without the adapter

`bench` is a Stage C of 64 channels on 8 x 8 latents with random weights, and denoising alone is
compared; `mini` is the shipped model, and `throughput` and `lone` of it are whole pictures.
`stable-cascade-1b` and `stable-cascade` are of the published sizes, with random weights and without
decoder: on one GPU, `--model stable-cascade --device cuda stock|compiled|adapter|poisson`. The
naive sides are in `sides.py`. Each round runs every side, in an order that alternates; what is
printed are medians, extremes, and the ratio within each round. `--serial-threads` are torch's
threads for the naive sides, `--threads` for the engine's step thread (its decode thread is one
more): give each what suits it best.

A machine that is busy with other work changes what is compared: rounds then scatter, and say so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.models import MODELS, PUBLISHED, pipeline_of
from benchmarks.rounds import (
    WAIT_S,
    Goal,
    alternate,
    alternate_steps,
    draw,
    in_turn,
    over,
    report_of,
    show,
    summary,
    timed,
    wait_for,
)
from benchmarks.sides import (
    EngineServer,
    NoDecoder,
    Outcome,
    PlainLoop,
    Server,
    StockPipeline,
    request_server,
    requests_of,
    row_by_row,
    serial_server,
)
from ppd_model.engine.engine import Engine
from ppd_model.pipeline import Pipeline
from ppd_model.sampling.devices import CPU_COMPILED, CUDA_GRAPHS, DeviceSupport
from ppd_model.types import ImageRequest, Sampling

AT_ONCE = 8
"""Requests in a batch of the request-level server at most."""


@dataclass(frozen=True)
class Given:
    """The command line."""

    model: str
    device: str
    rounds: int
    threads: int
    serial_threads: int
    jobs: int
    steps: int
    arrivals: int
    probes: int
    load: float


GOALS = {
    ("throughput", "bench"): [Goal("plain / engine", 2.5)],
    ("throughput", "mini"): [Goal("plain / engine", 1.4)],
    ("sampling", "mini"): [Goal("ddpm / own", 2.0), Goal("stock / own", 5.0)],
    ("lone", ""): [Goal("engine / plain", 1.05, at_most=True)],
    ("first-step", ""): [Goal("request-level / engine", 8.0)],
    ("poisson", ""): [
        Goal("mean: request-level / engine", 1.4),
        Goal("p95: request-level / engine", 1.5),
    ],
    ("compute-bound", ""): [Goal("mean: engine / first come", 1.05, at_most=True)],
    ("constants", ""): [Goal("without / with", 1.08)],
    ("adapter", ""): [Goal("on / off", 1.15, at_most=True)],
    **{
        key: [goal]
        for model in PUBLISHED
        for key, goal in {
            ("adapter", model): Goal("on / off", 1.10, at_most=True),
            ("stock", model): Goal("stock / engine", 1.6),
            ("compiled", model): Goal("eager / compiled", 1.3),
        }.items()
    },
}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", choices=[*ROWS, "all"])
    parser.add_argument("--model", choices=MODELS, default="bench")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--serial-threads", type=int)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--arrivals", type=int, default=60)
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    args = vars(parser.parse_args(argv))
    row, out, plot = args.pop("row"), args.pop("out"), args.pop("plot")
    args["serial_threads"] = args["serial_threads"] or args["threads"]
    given = Given(**args)
    torch.set_num_threads(given.serial_threads)
    rows = {name: measure(name, given) for name in (ROWS if row == "all" else [row])}
    show(report_of(vars(given), rows), out)
    if plot is not None:
        draw(rows, plot)


def measure(name: str, given: Given) -> dict[str, Any]:
    """One row: values of every round, their medians and extremes, and whether the goal is met."""
    pipeline = pipeline_of(given.model, given.device, decoder=name in WHOLE)
    goals = GOALS.get((name, given.model)) or GOALS.get((name, ""), [])
    return summary(ROWS[name](pipeline, given), goals)


def throughput(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """All jobs arrive at once."""
    plain = PlainLoop(pipeline, decode=has_decoder(pipeline))
    with Engine(pipeline, threads=given.threads) as engine:
        return all_at_once("plain", plain, engine, pipeline, given)


def all_at_once(
    name: str,
    alone: Callable[[ImageRequest], object],
    engine: Engine,
    pipeline: Pipeline,
    given: Given,
) -> dict[str, list[float]]:
    """Pictures a second of as many jobs at once: one after the other, and in the engine."""

    def one_by_one(requests: Sequence[ImageRequest]) -> None:
        for request in requests:
            alone(request)

    seconds = alternate(
        {name: one_by_one, "engine": together(engine)},
        lambda turn: requests_of(pipeline, [given.steps] * given.jobs, turn),
        given.rounds,
    )
    per_s = {f"pictures/s, {n}": [given.jobs / s for s in v] for n, v in seconds.items()}
    return per_s | {f"{name} / engine": over(seconds[name], seconds["engine"])}


def lone(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """One job by itself."""
    alone = replace(given, jobs=1)
    values = throughput(pipeline, alone)
    plain, engine = values["pictures/s, plain"], values["pictures/s, engine"]
    return values | {"engine / plain": over(plain, engine)}


def first_step(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """Probes arrive at random moments of a running batch, each in a batch of its own."""
    waits: dict[str, list[float]] = {"request-level": [], "engine": []}
    with Engine(pipeline, threads=given.threads) as engine:
        engine.wait_until_ready()
        sides: dict[str, Server] = {
            "request-level": request_server(pipeline, AT_ONCE, given.serial_threads),
            "engine": EngineServer(engine),
        }
        lasts_s = {name: batch_s(server, pipeline, given) for name, server in sides.items()}
        for turn in range(given.rounds):
            rng = np.random.default_rng(turn)
            phases = rng.uniform(0.05, 0.85, given.probes)
            for name in in_turn(sides, turn):
                probes = []
                for phase in phases:
                    running = [
                        sides[name].arrive(request)
                        for request in requests_of(pipeline, [given.steps] * 4, turn)
                    ]
                    time.sleep(phase * lasts_s[name])
                    (request,) = requests_of(pipeline, [given.steps], 99)
                    probes.append(sides[name].arrive(request))
                    wait_for([*running, probes[-1]])
                waits[name].append(float(np.percentile([p.waited_s for p in probes], 95)))
        sides["request-level"].close()
    return {f"p95 wait s, {name}": seconds for name, seconds in waits.items()} | {
        "request-level / engine": over(waits["request-level"], waits["engine"])
    }


def poisson(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """The same arrivals for every side."""
    plain = PlainLoop(pipeline, decode=False)
    with Engine(pipeline, threads=given.threads) as engine:
        engine.wait_until_ready()
        sides: dict[str, Server] = {
            "request-level": request_server(pipeline, AT_ONCE, given.serial_threads),
            "first come": serial_server(plain, given.serial_threads),
            "engine": EngineServer(engine),
        }
        return arrivals(sides, pipeline, given, plain)


def compute_bound(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """The same arrivals where sharing a pass gains nothing."""
    row_by_row(pipeline)
    first_come = request_server(pipeline, 1, given.serial_threads)

    def one(request: ImageRequest) -> None:
        pipeline.sample_latents([request], [torch.Generator().manual_seed(request.seed)])

    with Engine(pipeline, threads=given.threads) as engine:
        engine.wait_until_ready()
        sides: dict[str, Server] = {"first come": first_come, "engine": EngineServer(engine)}
        return arrivals(sides, pipeline, given, one)


def arrivals(
    sides: dict[str, Server],
    pipeline: Pipeline,
    given: Given,
    one: Callable[[ImageRequest], object],
) -> dict[str, list[float]]:
    """Latencies under a load of that part of the capacity of `one`, which is measured first."""
    mean_steps = 25
    (typical,) = requests_of(pipeline, [mean_steps], 1)
    service_s = min(timed(lambda: one(typical)) for _ in range(4))
    rate = given.load / service_s
    means: dict[str, list[float]] = {name: [] for name in sides}
    p95s: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(given.rounds):
        rng = np.random.default_rng(turn)
        steps = rng.integers(10, 2 * mean_steps - 10, given.arrivals, endpoint=True).tolist()
        gaps_s = rng.exponential(1 / rate, given.arrivals)
        requests = requests_of(pipeline, steps, turn)
        for name in in_turn(sides, turn):
            outcomes = play(sides[name], requests, gaps_s)
            latencies_s = [outcome.latency_s for outcome in outcomes]
            means[name].append(float(np.mean(latencies_s)))
            p95s[name].append(float(np.percentile(latencies_s, 95)))
    for server in sides.values():
        server.close()
    values = {"service s": [service_s]}
    for what, by_side in (("mean", means), ("p95", p95s)):
        values |= {f"{what} latency s, {name}": seconds for name, seconds in by_side.items()}
        for name in by_side:
            values[f"{what}: {name} / engine"] = over(by_side[name], by_side["engine"])
            values[f"{what}: engine / {name}"] = over(by_side["engine"], by_side[name])
    return values


def play(
    server: Server, requests: Sequence[ImageRequest], gaps_s: Sequence[float]
) -> list[Outcome]:
    """Hand in each request at its moment, however late the earlier ones are."""
    outcomes = []
    moment_s = time.perf_counter()
    for request, gap_s in zip(requests, gaps_s, strict=True):
        moment_s += gap_s
        time.sleep(max(0.0, moment_s - time.perf_counter()))
        outcomes.append(server.arrive(request))
    wait_for(outcomes)
    return outcomes


@torch.inference_mode()
def constants(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """One guided personal step; the results are compared first."""
    steps = {
        "with": step_of(pipeline),
        "without": step_of(pipeline, keep="nothing"),
        "text alone": step_of(pipeline, keep="user"),
    }
    kept, *others = (step() for step in steps.values())
    apart = max(float((kept - other).abs().max()) for other in others)
    assert apart <= 1e-5, f"they differ by {apart}"
    seconds = alternate_steps(steps, given.rounds)
    return seconds | {
        "apart": [apart],
        "without / with": over(seconds["without"], seconds["with"]),
        "text alone / with": over(seconds["text alone"], seconds["with"]),
    }


@torch.inference_mode()
def adapter(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """One guided step."""
    steps = {name: step_of(pipeline, personal=on) for name, on in (("on", True), ("off", False))}
    seconds = alternate_steps(steps, given.rounds)
    return seconds | {"on / off": over(seconds["on"], seconds["off"])}


def step_of(
    pipeline: Pipeline,
    *,
    keep: Literal["all", "user", "nothing"] = "all",
    personal: bool = True,
) -> Callable[[], torch.Tensor]:
    """A pass over one guided picture's two rows; `keep` is what is not made anew in it."""
    (request,) = requests_of(pipeline, [1], 0)
    text = pipeline.text_encoder.encode([request.prompt, ""])
    assert request.user_emb_D is not None
    device, user_emb_BD, strength_B = pipeline.device, None, None
    if personal:
        user_emb_BD = torch.from_numpy(request.user_emb_D).to(device).expand(2, -1)
        strength_B = torch.tensor([1.0, 0.0], device=device)
    given = (text.tokens_BSD, text.pooled_B1D, user_emb_BD, strength_B)
    x_BCHW = torch.randn(2, *pipeline.check([request]), generator=torch.Generator().manual_seed(0))
    x_BCHW, t_B = x_BCHW.to(device), torch.full((2,), 0.5, device=device)
    if keep == "nothing":
        return lambda: pipeline.stage_c(x_BCHW, t_B, *given)
    attended = pipeline.stage_c.attend(*given, precompute=keep == "all")
    return lambda: pipeline.stage_c.predict_noise(x_BCHW, t_B, attended)


def stock(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """All jobs arrive at once; the other side is diffusers' own pipeline, without the adapter."""
    stock_pipeline = StockPipeline(pipeline)
    with Engine(pipeline, threads=given.threads, support=fastest(pipeline)) as engine:
        return all_at_once("stock", stock_pipeline, engine, pipeline, given)


def sampling(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """All jobs arrive at once; whole pictures, by engines of two samplers and by diffusers."""
    before = pipeline_of(given.model, given.device, decoder=has_decoder(pipeline))
    before.preset = before.decoder.preset = replace(
        pipeline.preset, sampling=Sampling(), stage_b_solver="ddpm", stage_b_steps=6
    )
    stock_prior = StockPipeline(before)

    def by_stock(requests: Sequence[ImageRequest]) -> None:
        for request in requests:
            generator = torch.Generator().manual_seed(request.seed)
            before.decode([request], stock_prior(request), [generator])

    with (
        Engine(pipeline, threads=given.threads) as own,
        Engine(before, threads=given.threads) as ddpm,
    ):
        seconds = alternate(
            {"stock": by_stock, "ddpm": together(ddpm), "own": together(own)},
            lambda turn: requests_of(pipeline, [None] * given.jobs, turn),
            given.rounds,
        )
    per_s = {f"pictures/s, {n}": [given.jobs / s for s in v] for n, v in seconds.items()}
    return per_s | {
        "ddpm / own": over(seconds["ddpm"], seconds["own"]),
        "stock / own": over(seconds["stock"], seconds["own"]),
        "stock / ddpm": over(seconds["stock"], seconds["ddpm"]),
    }


def together(engine: Engine) -> Callable[[Sequence[ImageRequest]], None]:
    """All requests at once, each a job, and the wait for all."""
    engine.wait_until_ready()

    def run(requests: Sequence[ImageRequest]) -> None:
        for handle in [engine.submit([request]) for request in requests]:
            handle.result(WAIT_S)

    return run


def compiled(pipeline: Pipeline, given: Given) -> dict[str, list[float]]:
    """One job by itself; compilation marks the network's blocks, so each side has its own."""
    other = pipeline_of(given.model, given.device, decoder=False)
    with (
        Engine(pipeline, threads=given.threads) as eager,
        Engine(other, threads=given.threads, support=fastest(other)) as fast,
    ):
        for engine in (eager, fast):
            engine.wait_until_ready()
        seconds = alternate(
            {
                "eager": lambda requests: eager.submit(requests).result(WAIT_S),
                "compiled": lambda requests: fast.submit(requests).result(WAIT_S),
            },
            lambda turn: requests_of(pipeline, [given.steps], turn),
            given.rounds,
        )
    return {f"s, {name}": values for name, values in seconds.items()} | {
        "eager / compiled": over(seconds["eager"], seconds["compiled"])
    }


def fastest(pipeline: Pipeline) -> DeviceSupport:
    """What is measured, and not served before it has been: compiled blocks, on a GPU in graphs."""
    return CUDA_GRAPHS if pipeline.device.type == "cuda" else CPU_COMPILED


def has_decoder(pipeline: Pipeline) -> bool:
    """Whether whole pictures are made."""
    return not isinstance(pipeline.decoder, NoDecoder)


ROWS: dict[str, Callable[[Pipeline, Given], dict[str, list[float]]]] = {
    "throughput": throughput,
    "lone": lone,
    "first-step": first_step,
    "poisson": poisson,
    "compute-bound": compute_bound,
    "constants": constants,
    "adapter": adapter,
    "stock": stock,
    "sampling": sampling,
    "compiled": compiled,
}
WHOLE = ("throughput", "lone", "sampling")
"""Rows in which `mini` makes whole pictures; elsewhere denoising alone is compared."""


def batch_s(server: Server, pipeline: Pipeline, given: Given) -> float:
    """Seconds of the running batch without anyone else."""

    def run() -> None:
        wait_for([server.arrive(r) for r in requests_of(pipeline, [given.steps] * 4, 0)])

    return min(timed(run) for _ in range(3))


if __name__ == "__main__":
    main()
