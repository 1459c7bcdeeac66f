"""The table of an evaluation: what was measured, and what must be reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.reports.statistics import as_shares
from training.reports.tables import markdown_table
from training.world.scene import LOOKS


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of what must be reached: what, measured, reach, met (None: not measured)."""
    own, control = report["wins"]["own"], report["wins"]["control"]
    others, content, calls = report["wins"]["own_over_others"], report["content"], report["calls"]

    def row(what: str, measured: str, reach: str, met: bool | None) -> dict[str, Any]:
        return {"what": what, "measured": measured, "reach": reach, "met": met}

    kept_of_right = content["kept_of_right"]
    kept = "" if kept_of_right is None else f" (of what was right: {as_shares(kept_of_right)})"
    rows = [
        row("personalised against base, wins", as_shares(own), ">= 75 %", own["mean"] >= 0.75),
        row(
            "with another's profile (control)",
            as_shares(control),
            "50 % within the interval",
            report["wins"]["control_covers_half"],
        ),
        row(
            "own picture against the one made for another person, wins",
            as_shares(others),
            "> 50 % outside the interval",
            others["low"] > 0.5,
        ),
        row(
            "looks that move >= 0.5 sd for one-look people",
            f"{report['one_look']['count']} of {len(LOOKS)}",
            ">= 4 of 8",
            report["one_look"]["count"] >= 4,
        ),
        row(
            "setting right, base",
            f"{content['base']['setting']:.1%}",
            ">= 95 %",
            content["base"]["setting"] >= 0.95,
        ),
        row(
            "subject right, base",
            f"{content['base']['subject']:.1%}",
            ">= 60 %",
            content["base"]["subject"] >= 0.60,
        ),
        row(
            "content, personalised against base",
            f"{content['kept_ratio']:.1%}{kept}",
            ">= 97 %",
            content["kept_ratio"] >= 0.97,
        ),
        row(
            "same request, same seed",
            "identical bytes" if calls["identical_bytes"] else "different bytes",
            "identical bytes",
            calls["identical_bytes"],
        ),
    ]
    if "profile_s" in calls:
        rows += [
            row(
                f"four choices to profile, library call, {calls['threads']} threads",
                f"{calls['profile_s']:.2f} s",
                "<= 10 s",
                calls["profile_s"] <= 10,
            ),
            row(
                f"one picture, library call, {calls['threads']} threads",
                f"{calls['picture_s']:.2f} s",
                "<= 4 s",
                calls["picture_s"] <= 4,
            ),
        ]
    return rows


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        [row["what"], row["measured"], row["reach"], "yes" if row["met"] else "**no**"]
        for row in rows
    ]
    return markdown_table(["what", "measured", "reach", "met"], cells)
