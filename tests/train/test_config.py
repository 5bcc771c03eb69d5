from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.config import (
    BY_INIT,
    METHOD_NAMES,
    RANGES,
    VIEW_METHODS,
    PretrainConfig,
    make_config,
    read_config,
    to_toml,
)
from orinspect_train.methods import complete

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLOATS = [f.name for f in dataclasses.fields(PretrainConfig) if type(f.default) is float]
INTEGERS = [f.name for f in dataclasses.fields(PretrainConfig) if type(f.default) is int and f.name != "size"]
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1)


def configs() -> st.SearchStrategy[PretrainConfig]:
    values: dict[str, st.SearchStrategy[Any]] = {name: st.floats(*RANGES[name]) for name in FLOATS}
    values |= {name: st.integers(*map(int, RANGES[name])) for name in INTEGERS}
    values |= {"size": st.integers(2, 32).map(lambda n: 32 * n), "method": st.sampled_from(METHOD_NAMES)}
    return st.builds(PretrainConfig, **values, encoder=NAMES, init=NAMES)


@given(configs())
def test_a_configuration_survives_toml(config: PretrainConfig) -> None:
    assert make_config(tomllib.loads(to_toml(config).decode())) == config


@given(configs())
def test_resolving_leaves_nothing_to_resolve(config: PretrainConfig) -> None:
    resolved = config.resolved()
    assert resolved == resolved.resolved()
    assert resolved.learning_rate > 0 and resolved.batch_norm != "auto" != resolved.anomalies


def test_a_run_is_checked_for_what_its_method_learns() -> None:
    asked = {method: PretrainConfig(method=method).resolved().anomalies for method in METHOD_NAMES}
    assert {method for method, anomalies in asked.items() if anomalies == "other"} == {"rotation", "csi"}
    assert set(asked.values()) == {"damage", "other"}
    scratch = {method: PretrainConfig(method=method, init="scratch").resolved().anomalies for method in METHOD_NAMES}
    assert {method for method in scratch if scratch[method] == "other"} == {*VIEW_METHODS, "rotation"}
    assert PretrainConfig(method="rotation", anomalies="damage").resolved().anomalies == "damage"


def test_weights_from_scratch_are_all_trained() -> None:
    scratch, pretrained = PretrainConfig(init="scratch").resolved(), PretrainConfig().resolved()
    assert (scratch.frozen_stages, scratch.batch_norm) == (0, "trained")
    assert (pretrained.frozen_stages, pretrained.batch_norm) == (BY_INIT, "frozen")
    assert scratch.learning_rate > pretrained.learning_rate
    assert (scratch.initial_share, pretrained.initial_share) == (0, 0.25)
    assert PretrainConfig(initial_share=0).resolved().initial_share == 0
    with pytest.raises(ConfigError, match=r"initial_share is -0.5: use 0 to 0.9, or -1"):
        PretrainConfig(initial_share=-0.5)


@pytest.mark.parametrize(
    ("key", "near"), [("batchsize", "batch_size"), ("epoch", "epochs"), ("warm_up", "warmup_steps")]
)
def test_an_unknown_key_names_its_nearest_neighbour(tmp_path: Path, key: str, near: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f"{key} = 3\n")
    with pytest.raises(ConfigError, match=rf"c\.toml: unknown key '{key}': did you mean '{near}'\?"):
        read_config(file)


@pytest.mark.parametrize("name", RANGES)
def test_numbers_are_checked_at_both_ends(name: str) -> None:
    least, most = RANGES[name]
    for outside in (least - 1, most + 1):
        with pytest.raises(ConfigError, match=f"{name} is "):
            make_config({name: type(getattr(PretrainConfig(), name))(outside)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minutes = nan", "minutes is nan"),
        ("size = 100", "multiple of 32, e.g. 96"),
        ('size = "192"', "must be of type int"),
        ("seed = true", "must be of type int"),
        ('method = "simsiam"', "use one of synthetic_defects, nsa, .*distillation"),
        ('resize = "crop"', "use one of stretch, letterbox"),
        ('encoder = ""', "must not be empty"),
        ("size = = 3", "not TOML"),
    ],
)
def test_wrong_values_are_named_with_their_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_config(file)
    assert str(file) in str(error.value)


def test_options_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("size = 128\nminutes = 2\n")
    config = read_config(file, {"size": 256})
    assert (config.size, config.minutes) == (256, 2.0)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_config(tmp_path / "nowhere.toml")


def test_every_method_is_a_file_and_its_options_survive_toml() -> None:
    for method in METHOD_NAMES:
        config = complete(PretrainConfig(method=method))
        assert make_config(tomllib.loads(to_toml(config).decode())) == config


def test_a_table_for_another_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[moco\] holds options of a method, and the method is 'moco_v2'"):
        make_config({"method": "moco_v2", "moco": {"queue": 3}})


def test_the_configurations_that_come_along_are_valid() -> None:
    files = sorted((Path(__file__).parents[2] / "train/configs").glob("*.toml"))
    assert len(files) >= 7
    for file in files:
        complete(read_config(file))
