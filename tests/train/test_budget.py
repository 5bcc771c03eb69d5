from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train import budget
from orinspect_train.augment import Augmenter
from orinspect_train.budget import Speed, check_interval, epoch_steps, fit_checks, fit_steps, probe_speed, speed_of
from orinspect_train.config import PretrainConfig
from orinspect_train.encoder import Encoder
from orinspect_train.methods import open_method
from orinspect_train.pretrain import pretrain
from orinspect_train.progress import WARNING
from orinspect_train.training import Pretraining


@pytest.mark.parametrize(
    ("images", "batch_size", "devices", "epochs", "steps"),
    [(96, 48, 1, 1, 2), (97, 48, 1, 1, 3), (97, 48, 2, 1, 2), (10, 48, 1, 10, 3), (10, 5, 1, 0, 0)],
)
def test_steps_cover_the_epochs(images: int, batch_size: int, devices: int, epochs: int, steps: int) -> None:
    assert epoch_steps(images, batch_size, devices, epochs) == steps


def test_steps_fit_into_the_time_left() -> None:
    assert fit_steps(30.0, Speed("fp32", 0.5), PretrainConfig()) == 60


@given(st.integers(1, 5000), st.floats(0.01, 1000))
def test_checks_cost_a_tenth_of_the_training_at_most(steps: int, check_cost: float) -> None:
    between = (steps - 1) // check_interval(steps, check_cost)
    assert between * check_cost <= 0.1 * steps and between <= 4


@pytest.mark.parametrize(("steps", "check_cost", "interval"), [(100, 2, 20), (100, 4, 34), (100, 11, 100), (1, 9, 1)])
def test_as_many_checks_as_a_tenth_buys(steps: int, check_cost: float, interval: int) -> None:
    assert check_interval(steps, check_cost) == interval


def test_the_checks_leave_fewer_steps() -> None:
    speed, config = Speed("fp32", 0.5), PretrainConfig()
    assert fit_checks(50.0, 1.0, speed, config) == (92, 20)
    assert fit_checks(50.0, 20.0, speed, config) == (100, 100)
    assert fit_checks(50.0, 10.0, speed, PretrainConfig(check_every=30)) == (40, 30)


def test_too_short_a_budget_says_what_would_do() -> None:
    config, speed = PretrainConfig(minutes=0.5), Speed("fp32", 2.0)
    with pytest.raises(ConfigError, match=r"no time to train \(2\.0 s a step\); pass --minutes (\d+\.\d)") as error:
        fit_steps(-20.0, speed, config)
    enough = float(str(error.value).partition("--minutes ")[2].split()[0])
    assert fit_steps(-20.0 + 60 * (enough - config.minutes), speed, config) >= budget.FEWEST_STEPS


def test_the_probe_leaves_the_model_and_the_random_state_as_they_were(
    tiny: Callable[..., PretrainConfig], textured: Callable[..., np.ndarray]
) -> None:
    config = tiny(precision="auto").resolved()
    encoder = Encoder(config.encoder, config.size)
    module = Pretraining(encoder, open_method(config, encoder, Augmenter(gray=True), 1), config)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.random.get_rng_state()
    speed = probe_speed(module, textured(8), config, torch.device("cpu"))
    assert speed.precision in ("fp32", "bf16") and speed.step_seconds > 0
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_bf16_is_taken_only_when_it_is_clearly_faster(
    tiny: Callable[..., PretrainConfig], textured: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(precision="auto").resolved()
    encoder = Encoder(config.encoder, config.size)
    module = Pretraining(encoder, open_method(config, encoder, Augmenter(gray=True), 1), config)
    for bf16_seconds, expected in ((0.95, "fp32"), (0.8, "bf16")):
        seconds = {"fp32": 1.0, "bf16": bf16_seconds}
        monkeypatch.setattr(budget, "_time_steps", lambda m, b, precision, d, table=seconds: table[precision])
        assert probe_speed(module, textured(8), config, torch.device("cpu")).precision == expected


def test_a_gpu_and_the_processor_work_at_once_and_one_that_will_wait_is_told_of() -> None:
    assert speed_of("fp32", 2.0, 1.0, at_once=False) == Speed("fp32", 3.0)
    assert speed_of("bf16", 2.0, 1.0, at_once=True) == Speed("bf16", 2.0, 0.5)
    assert speed_of("bf16", 2.0, 5.0, at_once=True).step_seconds == 5.0
    assert "takes 2.5 times as long" in speed_of("bf16", 2.0, 5.0, at_once=True).warning
    assert (
        not speed_of("bf16", 2.0, 2.1, at_once=True).warning and not speed_of("bf16", 2.0, 5.0, at_once=False).warning
    )


def test_a_gpu_that_will_wait_for_its_images_is_told_of_before_training(
    image_folder: Path, tmp_path: Path, tiny: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    for name, rendering in (("starved", 3.0), ("fed", 0.5)):
        monkeypatch.setattr(budget, "probe_speed", lambda *_, rendering=rendering: Speed("fp32", 0.1, rendering))
        config = tiny(epochs=1, check_every=100)
        pretrain(image_folder, tmp_path / name, config, report=lambda stage, _, text: told.append((stage, text)))
    assert [text for stage, text in told if stage == WARNING] == [Speed("fp32", 0.1, 3.0).warning]


def test_a_probe_leaves_the_number_of_threads_as_it_was(
    tiny: Callable[..., PretrainConfig], textured: Callable[..., np.ndarray]
) -> None:
    config, threads = tiny(workers=2).resolved(), torch.get_num_threads()
    encoder = Encoder(config.encoder, config.size)
    module = Pretraining(encoder, open_method(config, encoder, Augmenter(gray=True), 1), config)
    torch.set_num_threads(2)
    try:
        probe_speed(module, textured(8), config, torch.device("cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
