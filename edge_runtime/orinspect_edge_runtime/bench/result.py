"""A saved result: read, and put beside another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.bench.comparison import LEAST_BLOCKS, Comparison, compare_times
from orinspect_edge_runtime.bench.measure import FORMAT
from orinspect_edge_runtime.errors import InputError

# What two runs must share to be compared at all, and what a reader must know when it differs.
MUST_AGREE = {"scenario": "scenario", "head": "head", "model_size": "model size", "batch": "frames a call"}
TOLD = ("encoder", "bank_rows", "recipe")


def read_result(path: Path) -> dict[str, Any]:
    """A result that `orinspect bench --out` wrote. Raises InputError: missing, no such file, another format, a sweep."""
    try:
        result = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: not a result of orinspect bench (no JSON)") from error
    if not isinstance(result, dict) or "format" not in result:
        raise InputError(f"{path}: not a result of orinspect bench, or one without raw times; measure again")
    if result["format"] != FORMAT:
        raise InputError(f"{path}: format {result['format']}, this orinspect reads {FORMAT}; measure again")
    if "results" in result:
        raise InputError(f"{path}: a sweep; compare results of single runs")
    if not _is_whole(result):
        raise InputError(f"{path}: damaged: its raw times are missing or no numbers; measure again")
    return result


def _is_whole(result: dict[str, Any]) -> bool:
    times, needed = result.get("times_ms"), (*MUST_AGREE, *TOLD, "latencies", "conditions", "clean", "why_not")
    if not isinstance(times, dict) or not times or any(key not in result for key in needed):
        return False
    return all(
        isinstance(rounds, list)
        and len(rounds) > 0
        and all(isinstance(r, list) and len(r) > 0 and all(_is_time(value) for value in r) for r in rounds)
        for rounds in times.values()
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def compare_results(here: dict[str, Any], there: dict[str, Any]) -> list[Comparison]:
    """Every precision that both hold. Raises InputError when they did not measure the same thing."""
    require_comparable(here, there)
    common = [precision for precision in here["times_ms"] if precision in there["times_ms"]]
    if not common:
        ours, theirs = (", ".join(result["times_ms"]) for result in (here, there))
        raise InputError(f"the results share no precision: {ours} here, {theirs} there")
    for precision in common:
        if min(len(result["times_ms"][precision]) for result in (here, there)) < LEAST_BLOCKS:
            raise InputError(f"too few calls for an interval: measure at least {LEAST_BLOCKS * 10} (--runs)")
    return [compare_times(p, here["times_ms"][p], there["times_ms"][p]) for p in common]


def require_comparable(here: dict[str, Any], there: dict[str, Any]) -> None:
    """Raises InputError naming what differs."""
    differs = [
        f"{words} {_plain(here[key])} here, {_plain(there[key])} there"
        for key, words in MUST_AGREE.items()
        if here[key] != there[key]
    ]
    rates = [{p: row["rate"] for p, row in result.get("server", {}).items()} for result in (here, there)]
    if not differs and any(rates[0][p] != rates[1][p] for p in rates[0].keys() & rates[1].keys()):
        differs.append("frames arrived at other rates: pass the same --rate")
    if differs:
        raise InputError(f"these results cannot be compared: {'; '.join(differs)}")


def remarks(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """What a reader of the comparison must know: other machine or encoder, runs that were not clean."""
    found = [f"{k.replace('_', ' ')}: {here[k]} here, {there[k]} there" for k in TOLD if here[k] != there[k]]
    for key in ("machine", "threads", "versions"):
        ours, theirs = here["conditions"].get(key), there["conditions"].get(key)
        if ours != theirs:
            found.append(f"{key}: {_plain(ours)} here, {_plain(theirs)} there")
    names = [name for name, result in (("this run", here), ("the other run", there)) if not result["clean"]]
    if names:
        found.append(f"not clean: {' and '.join(names)}; a difference may come from what disturbed it")
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(str(part) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)
