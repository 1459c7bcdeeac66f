"""Queues in front of one device or ten thousand, simulated from a measured step-time curve t(n).

    python -m benchmarks.simulate --curve 1:0.004,2:0.005,4:0.007,8:0.011,16:0.020 --devices 1,10
    python -m benchmarks.simulate --curve-file engine.json [--load 0.9] [--out FILE] [--plot FILE]

Jobs arrive as a Poisson process at a part of what all devices would serve one at a time, each of a
uniformly random number of steps and guided, so of two rows in the network. Three policies:

* first come: every device makes one picture at a time
* request-level: a free device takes up to 8 that wait, and is busy until the longest is done
* engine: rows join at any step, admitted by the engine's own rule (`ppd_model.engine.admission`),
  and leave when they are done

A job goes to an idle device if there is one; else the first device that has room takes it. What is
not in it: decoding, the network, and devices that fail. `--curve` takes rows in the network and
seconds; `--curve-file` is a json file with the points, alone or as `step_s` of an engine's
snapshot.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppd_model.engine.admission import Admission, StepCurve

ROWS_OF_A_JOB = 2
AT_ONCE = 8


@dataclass
class Job:
    """Moments in seconds."""

    arrived_s: float
    steps: int
    first_step_s: float = float("nan")
    ended_s: float = float("nan")
    left: int = 0


@dataclass
class Device:
    """What one device has in work."""

    jobs: list[Job] = field(default_factory=list)
    admission: Admission = field(default_factory=Admission)
    busy_s: float = 0.0


Policy = Callable[[Device, deque[Job], float, StepCurve], float]
"""Takes what it will from the queue and works for a while; returns for how long. 0: idle."""


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    curve = parser.add_mutually_exclusive_group(required=True)
    curve.add_argument("--curve", type=parse_curve)
    curve.add_argument("--curve-file", type=Path)
    parser.add_argument("--devices", default="1,10", help="numbers of devices, comma between")
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--steps", default="10-40", help="least and most steps of a job")
    parser.add_argument("--jobs", type=int, default=2000, help="at least; 20 a device for many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(argv)
    points_s = given.curve or read_curve(given.curve_file)
    least, most = (int(part) for part in given.steps.split("-"))
    report: dict[str, Any] = {
        "curve_s": points_s,
        "load": given.load,
        "steps": [least, most],
        "serial_pictures_per_s": serial_rate(StepCurve(points_s), least, most),
        "best_pictures_per_s": best_rate(StepCurve(points_s), least, most),
        "fleets": {},
    }
    for count in (int(part) for part in given.devices.split(",")):
        jobs = max(given.jobs, 20 * count)
        report["fleets"][count] = compare(
            points_s, count, given.load, (least, most), jobs, given.seed
        )
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    if given.plot is not None:
        draw(report, given.plot)


def compare(
    points_s: dict[int, float],
    devices: int,
    load: float,
    steps: tuple[int, int],
    jobs: int,
    seed: int,
) -> dict[str, Any]:
    """Every policy on the same arrivals."""
    curve = StepCurve(points_s)
    rng = np.random.default_rng(seed)
    rate = load * devices * serial_rate(curve, *steps)
    moments_s = np.cumsum(rng.exponential(1 / rate, jobs)).tolist()
    counts = rng.integers(*steps, jobs, endpoint=True).tolist()
    results: dict[str, Any] = {"arrivals_per_s": rate}
    for name, policy in POLICIES.items():
        arriving = [Job(at_s, count) for at_s, count in zip(moments_s, counts, strict=True)]
        results[name] = simulate(arriving, devices, policy, curve)
    engine = results["engine"]
    for name in ("first come", "request-level"):
        results[f"{name} / engine"] = {
            what: results[name][what] / engine[what] for what in ("mean_s", "p95_s")
        }
    return results


def simulate(
    arriving: Sequence[Job], devices: int, policy: Policy, curve: StepCurve
) -> dict[str, float]:
    """Mean and 95th percentile of the latencies, the wait for the first step, and the part of the
    time that the devices work.
    """
    fleet = [Device() for _ in range(devices)]
    idle = list(range(devices))
    queue: deque[Job] = deque()
    free_at_s: list[tuple[float, int]] = []
    coming = deque(arriving)
    now_s = 0.0
    while coming or free_at_s:
        if coming and (not free_at_s or coming[0].arrived_s <= free_at_s[0][0]):
            now_s = coming[0].arrived_s
            queue.append(coming.popleft())
            turn = [idle.pop()] if idle else []
        else:
            now_s, device = heapq.heappop(free_at_s)
            turn = [device]
        for device in turn:
            took_s = policy(fleet[device], queue, now_s, curve)
            fleet[device].busy_s += took_s
            if took_s:
                heapq.heappush(free_at_s, (now_s + took_s, device))
            else:
                idle.append(device)
    latencies_s = [job.ended_s - job.arrived_s for job in arriving]
    waits_s = [job.first_step_s - job.arrived_s for job in arriving]
    return {
        "mean_s": float(np.mean(latencies_s)),
        "p95_s": float(np.percentile(latencies_s, 95)),
        "first_step_p95_s": float(np.percentile(waits_s, 95)),
        "busy": float(sum(device.busy_s for device in fleet) / (now_s * devices)),
    }


def first_come(device: Device, queue: deque[Job], now_s: float, curve: StepCurve) -> float:
    """One job to its end."""
    return _to_the_end(queue, now_s, curve, at_once=1)


def request_level(device: Device, queue: deque[Job], now_s: float, curve: StepCurve) -> float:
    """What waits, to the end of the longest."""
    return _to_the_end(queue, now_s, curve, at_once=AT_ONCE)


def engine(device: Device, queue: deque[Job], now_s: float, curve: StepCurve) -> float:
    """One step of what is in work and of whoever pays."""
    jobs = device.jobs
    while queue:
        rows = ROWS_OF_A_JOB * len(jobs)
        if rows >= ROWS_OF_A_JOB * AT_ONCE or not device.admission.admits(
            curve.at(max(rows, 1)), curve.at(rows + ROWS_OF_A_JOB), rows, ROWS_OF_A_JOB
        ):
            break
        job = queue.popleft()
        job.first_step_s, job.left = now_s, job.steps
        jobs.append(job)
    if not jobs:
        return 0.0
    took_s = curve.at(ROWS_OF_A_JOB * len(jobs))
    for job in jobs:
        job.left -= 1
        job.ended_s = now_s + took_s
    device.jobs = [job for job in jobs if job.left]
    return took_s


POLICIES: dict[str, Policy] = {
    "first come": first_come,
    "request-level": request_level,
    "engine": engine,
}


def _to_the_end(queue: deque[Job], now_s: float, curve: StepCurve, at_once: int) -> float:
    taken = [queue.popleft() for _ in range(min(at_once, len(queue)))]
    if not taken:
        return 0.0
    took_s = max(job.steps for job in taken) * curve.at(ROWS_OF_A_JOB * len(taken))
    for job in taken:
        job.first_step_s, job.ended_s = now_s, now_s + took_s
    return took_s


def serial_rate(curve: StepCurve, least: int, most: int) -> float:
    """Pictures a second of one device that makes one at a time."""
    return 1 / (curve.at(ROWS_OF_A_JOB) * (least + most) / 2)


def best_rate(curve: StepCurve, least: int, most: int) -> float:
    """Pictures a second of one device at the number of jobs that pays most."""
    return max(
        count / (curve.at(ROWS_OF_A_JOB * count) * (least + most) / 2)
        for count in range(1, AT_ONCE + 1)
    )


def parse_curve(text: str) -> dict[int, float]:
    """ "1:0.004,2:0.005" -> rows to seconds."""
    pairs = (part.split(":") for part in text.split(","))
    return {int(rows): float(seconds) for rows, seconds in pairs}


def read_curve(path: Path) -> dict[int, float]:
    """Points from a json file: of themselves, or the first shape's in `step_s`."""
    content = json.loads(path.read_text())
    if "step_s" in content:
        content = next(iter(content["step_s"].values()))
    return {int(rows): float(seconds) for rows, seconds in content.items()}


def draw(report: dict[str, Any], path: Path) -> None:
    """Mean and p95 latency of every policy, by the number of devices."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    fleets = report["fleets"]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for axis, what in zip(axes, ("mean_s", "p95_s"), strict=True):
        for name in POLICIES:
            axis.plot(
                list(fleets), [fleet[name][what] for fleet in fleets.values()], "o-", label=name
            )
        axis.set(xscale="log", yscale="log", xlabel="devices", title=f"{what[:-2]} latency, s")
    axes[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
