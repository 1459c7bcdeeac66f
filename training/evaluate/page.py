"""The page of an evaluation: report.json as tables, plots and pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from training.reports.plots import INK, OTHER, OURS, as_png, error_bars, grouped_bars

ASKED = {"random": "random pairs", "served": "pairs as the quiz asks them"}
WHO = {
    "train": "whose choices the adapter was trained on",
    "validate": "that nothing was trained on, but on whom hyperparameters were chosen",
    "test": "that no part of the model has seen",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#2b2b33;max-width:960px;margin:2rem auto;
padding:0 1rem} table{border-collapse:collapse;width:100%} td,th{text-align:left;
padding:.4rem .6rem;border-bottom:1px solid #ddd;vertical-align:top} img{max-width:100%}
.strip img{width:112px;height:112px;margin:2px;border-radius:4px} .no{color:#a4312a;
font-weight:600} figure{margin:1rem 0} figcaption{color:#666;font-size:.9rem}
"""


def write_page(folder: Path, report: dict[str, Any], gallery: Sequence[dict[str, Any]]) -> None:
    """Write index.html, complete in itself, and the plots as PNG files beside it."""
    plots = {"wins.png": plot_wins(report), "looks.png": plot_looks(report)}
    for name, content in plots.items():
        (folder / name).write_bytes(content)
    escape = html.escape
    rows = "".join(
        f"<tr><td>{escape(row['what'])}</td><td>{escape(row['measured'])}</td>"
        f"<td>{escape(row['reach'])}</td>"
        f"<td class={'yes' if row['met'] else 'no'}>{'yes' if row['met'] else 'no'}</td></tr>"
        for row in report["table"]
    )
    profiles = report["profiles"]
    probe = profiles["cosine_of_linear_probe"]
    people = "".join(person(entry) for entry in gallery)
    body = f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>Evaluation of {escape(report["preset"])}</title><style>{STYLE}</style>
<h1>Evaluation of {escape(report["preset"])}</h1>
<p>{report["people"]["count"]} simulated people {WHO[report["people"]["split"]]}, four
{ASKED[report["quiz"]]} each, read by the VLM. Commit
<code>{escape(report["commit"])}</code>, model <code>{escape(report["model"])}</code>, adapter
<code>{escape(report["adapter_version"])}</code>, encoder
<code>{escape(report["encoder_version"])}</code>.</p>
<table><tr><th>what</th><th>measured</th><th>reach</th><th>met</th></tr>{rows}</table>
<figure><img alt="Win rates with intervals" src="{data_url(plots["wins.png"])}">
<figcaption>Same prompt and seed, judged by measured looks. Bars: 95 % interval, people (control:
groups) redrawn.</figcaption></figure>
<figure><img alt="Effect per look" src="{data_url(plots["looks.png"])}"><figcaption>People who care
for one look only: how far it moves in the wanted direction.</figcaption></figure>
<p>Cosine to the true taste: best estimate from the four answers
{profiles["cosine_of_best_estimate"]:.2f}; linear probe of the embedding
{"not measured" if probe is None else f"{probe:.2f}"}. {profiles["distinct_profiles"]} different
profile texts.</p>
<h2>Some of the people</h2><p>The first of each group; nobody chose them.</p>{people}"""
    (folder / "index.html").write_text(body)


def person(entry: dict[str, Any]) -> str:
    """One person: profile, preferred pictures, base and own pictures."""
    strips = "".join(
        f"<tr><th>{label}</th><td class=strip>{pictures(entry[key])}</td></tr>"
        for label, key in (("preferred", "preferred"), ("base", "base"), ("theirs", "own"))
    )
    prompts = html.escape("; ".join(entry["prompts"]))
    return f"<p>{html.escape(entry['profile'])}</p><table>{strips}</table><p><i>{prompts}</i></p>"


def pictures(images: Sequence[Any]) -> str:
    return "".join(f'<img alt="" src="{data_url(png(image))}">' for image in images)


def png(image: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def plot_wins(report: dict[str, Any]) -> bytes:
    """Win rates with intervals: own profile, control, and the bounds that were measured."""
    bars = [
        ("own profile,\nfour choices", report["wins"]["own"], OURS),
        ("another's\nprofile", report["wins"]["control"], OTHER),
    ]
    names = {"best_estimate": "best estimate\nfrom the choices", "true_taste": "true taste"}
    bars += [
        (label, report["bounds"][name]["own"], INK)
        for name, label in names.items()
        if name in report["bounds"]
    ]
    labels, values, colours = zip(*bars, strict=True)
    return grouped_bars({"": (colours, values)}, labels, "wins against base")


def plot_looks(report: dict[str, Any]) -> bytes:
    """Effect per look of one-look people, with the half sd that is asked for."""
    effects = report["one_look"]["effect_sd"]
    means = [effect["mean"] for effect in effects.values()]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(effects), means, color=[OURS if mean >= 0.5 else OTHER for mean in means])
    xerr = error_bars(list(effects.values()))
    axes.errorbar(means, list(effects), xerr=xerr, fmt="none", ecolor="black", capsize=3)
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("change in the wanted direction, sd")
    return as_png(figure)
