"""The configuration of watch: every mistake is one line that says what to do."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.watch.config import TABLES, WatchConfig, make_config, read_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LEAST: dict[str, Any] = {"source": {"location": "in"}, "recipe": {"bundle": "bundle"}}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sorce": {}}, "unknown key 'sorce': did you mean 'source'?"),
        ({"source": {"locaton": "in"}}, "[source] unknown key 'locaton': did you mean 'location'?"),
        ({"source": {}}, "[source] location is missing"),
        ({"source": {"location": "in", "rotate": 45}}, "rotate is 45: use one of 0, 90, 180, 270"),
        ({"source": {"location": "in", "region": [0, 0, 3, 9]}}, "region is [0, 0, 3, 9]"),
        ({"source": {"location": "in", "fps_max": float("nan")}}, "fps_max is nan"),
        ({"verdict": {"debounce": 0}}, "[verdict] debounce is 0: it must be 1 to 1000"),
        ({"verdict": {"debounce": True}}, "debounce is True: it must be of type int"),
        ({"source": {"location": "x", "kind": "gstreamer"}}, "size is []: give the pipeline's [width, height]"),
        ({"recipe": {"bundle": "b", "also": ["a"]}}, "name is empty: with `also`, name the recipe"),
        ({"recipe": {"bundle": "b", "name": "a", "also": [1]}}, "also is [1]: it must be of type list of strings"),
        ({"trigger": {}}, "[trigger] needs a source of kind camera or gstreamer"),
        ({"trigger": {"gpio": {"/line": 3}}}, "gpio is {'/line': 3}: it must be of type table of strings"),
        ({"trigger": {"edge": "up"}}, "edge is 'up': use one of rising, falling, both"),
        ({"images": {"path": "p", "which": "bad"}}, "which is 'bad': use one of rejects, reviews, all"),
        ({"mqtt": 3}, "mqtt must be a table"),
        ({"mqtt": {"host": "h", "topic": "a/#"}}, "a topic has no #"),
        ({"webhook": {"url": "file:///etc/passwd"}}, "begins with http"),
    ],
)
def test_a_mistake_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(LEAST | values)
    assert says in str(caught.value)


def test_a_missing_table_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the table \[recipe\] is missing"):
        make_config({"source": {"location": "in"}})


def test_a_file_fills_it(tmp_path: Path) -> None:
    file = tmp_path / "watch.toml"
    file.write_text('[source]\nlocation = "in"\nregion = [1, 2, 30, 40]\nfps_max = 5\n[recipe]\nbundle = "b"\n')
    config = read_config(file)
    assert config.source.region == (1, 2, 30, 40)
    assert config.source.fps_max == 5.0
    assert config.mqtt is None
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"watch.toml: not TOML"):
        read_config(file)
    with pytest.raises(ConfigError, match=r"no.toml: cannot be read"):
        read_config(tmp_path / "no.toml")


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(make_config(LEAST | {"mqtt": {"host": "h", "password": "secret"}}))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted({key for table in TABLES.values() for key in table.__dataclass_fields__})
TABLE = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), VALUES, max_size=4)


@given(st.dictionaries(st.sampled_from([*TABLES, "status"]) | st.text(max_size=6), TABLE | VALUES, max_size=4))
def test_whatever_stands_in_it_it_is_a_config_or_one_error(values: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(make_config(LEAST | values), WatchConfig)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_one_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        read_config(file)


def test_thousands_of_damaged_files_are_a_config_or_one_error() -> None:
    script = Path(__file__).parents[3] / "benchmarks/watch_fuzz.py"
    if not script.exists():
        pytest.skip("the benchmarks lie in the sources only")
    command = [sys.executable, str(script), "--count", "3000", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("3000 configurations: {")
    # Both outcomes occur: otherwise it would only try its own mistakes.
    assert "'taken'" in done.stdout
    assert "'refused'" in done.stdout
    assert "several" not in done.stdout


def test_the_example_of_the_documentation_is_a_config_also_with_its_options() -> None:
    page = Path(__file__).parents[3] / "docs/watch.md"
    if not page.exists():
        pytest.skip("the documentation lies in the sources only")
    example = page.read_text("utf-8").partition("```toml\n")[2].partition("```")[0]
    assert make_config(tomllib.loads(example)).verdict.review_band == 0.1
    whole = (
        re.sub(r"^# ", "", example, flags=re.MULTILINE).replace('kind = "folder"', "", 1).replace('location = "in"', "")
    )
    config = make_config(tomllib.loads(whole.replace("[source]", '[source]\nlocation = "rtsp://camera/1"')))
    assert (config.source.kind, config.source.rotate, config.recipe.name) == ("camera", 90, "bracket")
    assert config.recipe.also == ("cover", "lid")
    assert config.images is not None
    assert config.trigger is not None
    assert list(config.trigger.gpio.values()) == ["", "cover"]
    assert config.mqtt is not None
    assert config.webhook is not None
