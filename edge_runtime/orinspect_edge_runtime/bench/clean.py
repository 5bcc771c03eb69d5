"""Can a run be trusted? A run is clean when nothing known disturbed it, and everything that could was looked at."""

from __future__ import annotations

from typing import Any

from orinspect_edge_runtime.bench.energy import clocks_moved

# Of the cores: above it the machine did something else when the run began.
MOST_LOAD = 0.5


def why_not_clean(result: dict[str, Any]) -> list[str]:
    """Sentences, one a reason; empty for a clean run. What was not measured is a reason too: nobody knows then."""
    reasons = [
        f"{precision} did not become stable in {w['runs']} warm-up calls (last change {w['last_change']:.1%})"
        for precision, w in result["warm_up"].items()
        if not w["stable"]
    ]
    conditions = result["conditions"]
    load, cores = conditions["load_before"], conditions["cores_available"]
    if load >= MOST_LOAD * cores:
        reasons.append(f"the load was {load} before, on {cores} cores: close other programs and wait a minute")
    return reasons + _of_the_board(result)


def _of_the_board(result: dict[str, Any]) -> list[str]:
    seen = result["telemetry"]
    if not seen["measured"]:
        return [seen["note"]]
    reasons = [] if seen["note"] is None else [seen["note"]]
    moved = clocks_moved(seen["readings"], [tuple(s) for spans in result["round_spans_s"].values() for s in spans])
    reasons += ["no clock was read during the timed rounds: pass more --runs"] if moved is None else moved
    reasons += list(dict.fromkeys(seen["throttled"]))
    before, after = seen["power_mode_before"], seen["power_mode_after"]
    if before is None or after is None:
        reasons.append("the board did not say which power mode is in force")
    elif before != after:
        reasons.append(f"the power mode changed from {before} to {after}")
    return reasons
