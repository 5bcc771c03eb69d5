"""Damaged configurations for `orinspect watch`: each must be a configuration or one error, never another exception.

    python benchmarks/watch_fuzz.py [--count 100000] [--seed 0]      about a minute; exit code 1 when one got through

The documentation's example with all its options is damaged in its text (bytes changed, lines doubled, moved, cut) or in
its values (other types, extremes, other keys).
"""

from __future__ import annotations

import argparse
import copy
import random
import re
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.watch.config import make_config, read_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = Path(__file__).resolve().parents[1] / "docs/watch.md"
STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    float("nan"),
    float("-inf"),
    1e300,
    "",
    "\0",
    "x" * 10_000,
    "\ud800",
    [],
    [0] * 1000,
    [1, "2"],
    [[]],
    {},
    {"a": {"b": []}},
    {"": ""},
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chance, counts = random.Random(chosen.seed), Counter[str]()
    text = PAGE.read_text("utf-8").partition("```toml\n")[2].partition("```")[0]
    text = re.sub(r"^# ", "", text, flags=re.MULTILINE).replace('kind = "folder"', "", 1)
    values = tomllib.loads(text)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(chosen.count):
            counts[_tried(text if number % 2 else values, chance, Path(folder, "watch.toml"))] += 1
    print(f"{chosen.count} configurations: {dict(counts)}")
    return int(counts["crashed"] > 0)


def _tried(whole: str | dict[str, Any], chance: random.Random, file: Path) -> str:
    """What became of a damaged file, or of damaged values."""
    try:
        if isinstance(whole, str):
            file.write_bytes(_damaged(whole.encode(), chance))
            read_config(file)
        else:
            make_config(_strange(whole, chance))
    except ConfigError as error:
        return "refused" if "\n" not in str(error) else "refused in several lines"
    except Exception:  # noqa: BLE001  what this looks for
        traceback.print_exc()
        return "crashed"
    return "taken"


def _damaged(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    for _ in range(chance.randint(0, 3)):
        here, there = chance.randrange(len(lines)), chance.randrange(len(lines))
        lines[here], lines[there] = (lines[there], lines[here]) if chance.random() < 0.5 else (lines[here],) * 2
    damaged = bytearray(b"".join(lines))
    for _ in range(chance.randint(0, 3)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged[: chance.randrange(len(damaged))] if chance.random() < 0.1 else damaged)


def _strange(values: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    made = copy.deepcopy(values)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(made))
        if isinstance(made[name], dict) and made[name] and chance.random() < 0.9:
            key = chance.choice([*made[name], "nosuch"])
            made[name][key] = chance.choice(STRANGE)
        else:
            made[chance.choice([name, "nosuch"])] = chance.choice(STRANGE)
    return made


if __name__ == "__main__":
    sys.exit(main())
