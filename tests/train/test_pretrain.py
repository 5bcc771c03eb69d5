from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orinspect_edge_runtime.errors import CheckFailed, ConfigError, InputError
from orinspect_train import alignment, keeper
from orinspect_train.alignment import Alignment
from orinspect_train.checkpoint import Checkpoint, read_checkpoint
from orinspect_train.config import METHOD_NAMES, PretrainConfig, read_config, to_toml
from orinspect_train.methods import synthetic_defects
from orinspect_train.metrics_log import Row, read_log
from orinspect_train.other_things import OTHER_THINGS
from orinspect_train.pretrain import open_encoder, pretrain
from orinspect_train.run import load_encoder
from orinspect_train.run_folder import CHECKPOINT, CONFIG, DROPPED, METRICS, RECORD, WEIGHTS, is_finished

Tiny = Callable[..., PretrainConfig]
pytestmark = pytest.mark.usefixtures("on_processor")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    # Sums over several threads are grouped by their number; the curves compared here must come from equal ones.
    torch.set_num_threads(1)


def curve(run: Path) -> list[Row]:
    """The log without the seconds."""
    return [dataclasses.replace(row, seconds=0.0) for row in read_log(run / METRICS)]


def last(run: Path) -> Checkpoint:
    checkpoint = read_checkpoint(run / CHECKPOINT)
    assert checkpoint is not None
    return checkpoint


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, image_folder: Path, on_processor: None) -> Path:
    """A run that nothing interrupted: 20 images, 10 steps."""
    torch.set_num_threads(1)
    config = PretrainConfig(
        encoder="test_efficientnet", init="scratch", size=64, epochs=2, batch_size=4, precision="fp32",
        log_every=1, checkpoint_every=3, check_every=4,
    )  # fmt: skip
    run = tmp_path_factory.mktemp("straight") / "run"
    pretrain(image_folder, run, config)
    return run


def test_a_run_leaves_its_encoder_its_configuration_and_its_curve(straight: Path) -> None:
    encoder, record = load_encoder(straight)
    config = read_config(straight / CONFIG)
    assert (config.encoder, config.learning_rate, config.frozen_stages) == (encoder.name, 1e-3, 0)
    assert record["preprocess"] == {"height": 64, "width": 64, "resize": "stretch", "bit_depth": 16}
    assert set(record["alignment"]) == {"measure", "unadapted", "adapted", "step", "checks"}
    signals = {str(row.step): row.signal for row in curve(straight) if row.signal is not None}
    assert record["alignment"]["checks"] == signals and list(signals) == ["4", "8", "10"]
    assert (record["method"], record["init"]) == ("synthetic_defects", "scratch")
    steps = curve(straight)
    assert [row.step for row in steps] == list(range(1, 11))
    assert steps[-1].images_seen == 40
    assert all(np.isfinite(row.loss) and row.effective_rank >= 1 for row in steps)
    rates = [row.lr for row in steps]
    assert max(rates) < 1e-3 * 1.0001 and rates[-1] < 0.1 * max(rates)


def test_a_run_by_rotation_is_asked_for_other_things(image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    run, config = tmp_path / "run", tiny(method="rotation", epochs=1)
    outcome = pretrain(image_folder, run, config)
    assert outcome.alignment["measure"] == alignment.ANOMALIES["other"].measure
    assert set(outcome.alignment["unadapted"]) == {"mean", *OTHER_THINGS}
    (run / RECORD).unlink()
    with pytest.raises(InputError, match="began it with another check; start again with --force"):
        pretrain(image_folder, run, dataclasses.replace(config, anomalies="damage"), resume=True)


def test_a_run_is_not_resumed_under_a_check_by_another_scorer(
    image_folder: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patches and embedding are asked for the same drawn defects: their figures look alike and compare with nothing."""
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / RECORD).unlink()
    monkeypatch.setattr(alignment, "anomalies_of", lambda asked, encoder: alignment.EMBEDDED_DAMAGE)
    with pytest.raises(InputError, match="began it with another check; start again with --force"):
        pretrain(image_folder, run, read_config(run / CONFIG), resume=True)


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [1, 3, 5, 7, 10])
def test_an_interrupted_run_goes_on_bit_for_bit(
    step: int, straight: Path, image_folder: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = keeper.Keeper._log

    def interrupting(self: Any, trainer: Any, module: Any, number: int, *rest: Any) -> None:
        log(self, trainer, module, number, *rest)
        if number == step:
            raise Killed

    run = tmp_path / "run"
    monkeypatch.setattr(keeper.Keeper, "_log", interrupting)
    with pytest.raises(Killed):
        pretrain(image_folder, run, tiny(check_every=4))
    monkeypatch.undo()
    assert not is_finished(run)
    with pytest.raises(InputError, match="not finished"):
        load_encoder(run)
    torch.rand(step)
    np.random.default_rng().random(step)
    pretrain(image_folder, run, read_config(run / CONFIG), resume=True)
    assert curve(run) == curve(straight)
    assert equal(last(run).model, last(straight).model) and last(run).checks == last(straight).checks
    assert (run / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()


def test_a_killed_process_goes_on_bit_for_bit(straight: Path, image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    run, file = tmp_path / "run", tmp_path / "c.toml"
    file.write_bytes(to_toml(tiny(check_every=4)))
    program = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from orinspect_train.config import read_config; from orinspect_train.pretrain import pretrain\n"
        "data, run, file = map(Path, sys.argv[1:]); pretrain(data, run, read_config(file))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", program, image_folder, run, file], env=environment)
    try:
        deadline = time.monotonic() + 120
        while len(read_log(run / METRICS)) < 4 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL and not is_finished(run)
    assert last(run).step >= 3
    pretrain(image_folder, run, read_config(run / CONFIG), resume=True)
    assert curve(run) == curve(straight)
    assert (run / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()


@pytest.mark.parametrize("method", [name for name in METHOD_NAMES if name != "synthetic_defects"])
def test_every_method_goes_on_bit_for_bit(
    method: str, image_folder: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = keeper.Keeper._log
    options: dict[str, Any] = {"weights": "imagenet", "teacher": "tf_efficientnet_lite0"}
    encoder = "test_vit" if method == "mae" else "test_efficientnet"
    config = tiny(method=method, encoder=encoder, epochs=1, options=options if method == "distillation" else {})

    def interrupting(self: Any, trainer: Any, module: Any, number: int, *rest: Any) -> None:
        log(self, trainer, module, number, *rest)
        if number == 4:
            raise Killed

    # Neither check matters here, and they take most of the time.
    def alike(check: alignment.Check, module: Any) -> Alignment:
        return Alignment(dict.fromkeys(check.anomalies.kinds, 0.5))

    monkeypatch.setattr(alignment.Check, "measure", alike)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pretrain(image_folder, whole, config)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keeper.Keeper, "_log", interrupting)
        pretrain(image_folder, cut, config)
    pretrain(image_folder, cut, read_config(cut / CONFIG), resume=True)
    assert [row.step for row in curve(cut)] == [1, 2, 3, 4, 5]
    assert curve(cut) == curve(whole) and equal(last(cut).model, last(whole).model)


def test_ctrl_c_is_an_interruption(
    image_folder: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: Any) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(keeper.Keeper, "_log", pressed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(image_folder, tmp_path / "run", tiny())
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_resumed_run_must_see_the_same_images(image_folder: Path, straight: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for path in image_folder.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    Image.new("L", (64, 64)).save(data / "00.png")
    (run / "checkpoints").mkdir(parents=True)
    for name in (CONFIG, CHECKPOINT):
        (run / name).write_bytes((straight / name).read_bytes())
    with pytest.raises(InputError, match="it began with other images"):
        pretrain(data, run, read_config(run / CONFIG), resume=True)


def test_another_seed_gives_another_curve(straight: Path, image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    pretrain(image_folder, tmp_path / "run", tiny(seed=1))
    assert curve(tmp_path / "run") != curve(straight)


@pytest.mark.parametrize("helped", [True, False])
def test_the_encoder_is_adapted_only_if_that_helped(
    helped: bool, image_folder: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.6, 0.7 if helped else 0.5])

    def measured(*_: Any) -> Alignment:
        value = next(values)
        return Alignment({"stain": value, "missing": value, "scratch": value})

    monkeypatch.setattr(alignment.Check, "measure", measured)
    run, config = tmp_path / "run", tiny(epochs=1)
    outcome = pretrain(image_folder, run, config)
    encoder, record = load_encoder(run)
    assert outcome.adapted is record["adapted"] is outcome.patches_adapted is helped
    assert record["alignment"]["unadapted"]["mean"] == pytest.approx(0.6)
    initial = open_encoder(config).trunk.state_dict()
    assert equal(encoder.trunk.state_dict(), initial) is not helped
    assert (run / DROPPED).exists() is not helped
    if not helped:
        adapted = open_encoder(tiny(init=str(run / DROPPED))).trunk.state_dict()
        assert not equal(adapted, initial)


def measuring(monkeypatch: pytest.MonkeyPatch, *means: float) -> list[dict[str, torch.Tensor]]:
    """Let the next checks find these means; the trunks they look at are put into the list."""
    values, trunks = iter(means), list[dict[str, torch.Tensor]]()

    def measured(check: Any, module: Any) -> Alignment:
        trunks.append({name: value.clone() for name, value in module.encoder.trunk.state_dict().items()})
        return Alignment(dict.fromkeys(("stain", "missing", "scratch"), next(values)))

    monkeypatch.setattr(alignment.Check, "measure", measured)
    return trunks


@pytest.mark.parametrize(
    ("means", "best", "helped"),
    [
        ((0.5, 0.7, 0.6, 0.55), 1, True),
        ((0.5, 0.6, 0.7, 0.7), 2, True),
        ((0.5, 0.4, 0.3, 0.6), 3, True),
        ((0.5, 0.505, 0.2, 0.1), 1, False),
    ],
)
def test_the_best_of_the_checked_weights_is_kept(
    means: tuple[float, ...],
    best: int,
    helped: bool,
    image_folder: Path,
    tmp_path: Path,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trunks = measuring(monkeypatch, *means)
    run = tmp_path / "run"
    pretrain(image_folder, run, tiny(check_every=4))
    encoder, record = load_encoder(run)
    assert equal(encoder.trunk.state_dict(), trunks[best if helped else 0])
    assert record["alignment"]["step"] == (4, 8, 10)[best - 1]
    assert record["alignment"]["adapted"]["mean"] == pytest.approx(means[best])
    if not helped:
        assert equal(open_encoder(tiny(init=str(run / DROPPED))).trunk.state_dict(), trunks[best])


def test_the_best_weights_outlive_a_kill(
    image_folder: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = keeper.Keeper._log

    def interrupting(self: Any, trainer: Any, module: Any, number: int, *rest: Any) -> None:
        log(self, trainer, module, number, *rest)
        if number == 7:
            raise Killed

    trunks = measuring(monkeypatch, 0.5, 0.7, 0.6, 0.55)
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keeper.Keeper, "_log", interrupting)
        pretrain(image_folder, run, tiny(check_every=4))
    pretrain(image_folder, run, read_config(run / CONFIG), resume=True)
    encoder, record = load_encoder(run)
    assert (record["alignment"]["step"], list(record["alignment"]["checks"])) == (4, ["4", "8", "10"])
    assert equal(encoder.trunk.state_dict(), trunks[1]) and len(trunks) == 4


def test_a_check_changes_nothing_of_the_training(
    straight: Path, image_folder: Path, tmp_path: Path, tiny: Tiny
) -> None:
    pretrain(image_folder, tmp_path / "run", tiny(check_every=1000))
    assert list(last(tmp_path / "run").checks) == [10]
    assert equal(last(tmp_path / "run").model, last(straight).model)


def test_what_is_checked_and_kept_may_be_halfway_to_where_it_began(
    image_folder: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(read_config(straight / CONFIG), initial_share=0.25, check_every=20)
    monkeypatch.setattr(alignment, "has_helped", lambda before, after: True)
    pretrain(image_folder, tmp_path / "run", config)
    encoder, record = load_encoder(tmp_path / "run")
    assert record["adapted"] and list(record["alignment"]["checks"]) == ["10"]
    initial, trained = open_encoder(config).trunk.state_dict(), last(tmp_path / "run").model
    for name, value in encoder.trunk.state_dict().items():
        own = trained[f"encoder.trunk.{name}"]
        wanted = torch.lerp(own, initial[name], 0.25) if own.is_floating_point() else own
        assert torch.equal(value, wanted), name
    assert [row.loss for row in curve(tmp_path / "run")] == [row.loss for row in curve(straight)], "trained as without"


def test_no_epochs_publish_the_encoder_as_it_starts(image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    outcome = pretrain(image_folder, tmp_path / "run", tiny(epochs=0))
    encoder, record = load_encoder(tmp_path / "run")
    assert (outcome.steps, record["adapted"], record["alignment"]) == (0, False, {})
    assert equal(encoder.trunk.state_dict(), open_encoder(tiny()).trunk.state_dict())


def test_minutes_bound_the_whole_run(image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    start = time.monotonic()
    outcome = pretrain(image_folder, tmp_path / "run", tiny(epochs=-1, minutes=0.1, precision="auto"))
    seconds = time.monotonic() - start
    assert 1 <= outcome.steps <= outcome.planned_steps
    assert 0.3 * 6 < seconds < 5 * 6, "the upper bound is for a machine at other work"


def test_what_patchcore_and_padim_see_of_pretrained_weights_stays(
    image_folder: Path, straight: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "has_helped", lambda before, after: True)
    config = tiny(epochs=1, init=str(straight / WEIGHTS))
    outcome = pretrain(image_folder, tmp_path / "run", config)
    assert outcome.alignment["measure"] == alignment.EMBEDDED_DAMAGE.measure
    assert outcome.adapted and not outcome.patches_adapted
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        before, after = open_encoder(config).eval()(images), load_encoder(tmp_path / "run")[0](images)
    assert torch.equal(before[1], after[1]), "patches"
    assert not torch.equal(before[0], after[0]), "embedding"


def test_frozen_parts_do_not_move(image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    config = tiny(epochs=1, frozen_stages=2, batch_norm="frozen")
    pretrain(image_folder, tmp_path / "run", config)
    before, after = open_encoder(config).trunk.state_dict(), last(tmp_path / "run").model
    moved = {name for name, value in before.items() if not torch.equal(value, after[f"encoder.trunk.{name}"])}
    assert moved
    assert not any(
        "running" in name or name.startswith(("conv_stem", "bn1", "blocks.0", "blocks.1.")) for name in moved
    )


def test_a_collapse_stops_the_run(
    image_folder: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss_of(encoder: Any, heads: Any, options: Any, normalise: Any, batch: Any, done: float) -> Any:
        embedding, _ = encoder(normalise(batch["images"]))
        # Agreement and nothing against it: one point for all images is the best answer.
        return embedding.square().mean() * 100, embedding * 0 + 1

    monkeypatch.setattr(synthetic_defects, "loss_of", loss_of)
    with pytest.raises(CheckFailed, match="collapsed .* use method"):
        pretrain(image_folder, tmp_path / "run", tiny(epochs=6))
    assert not is_finished(tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run(
    image_folder: Path, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss_of = synthetic_defects.loss_of

    def overflowing(*arguments: Any) -> Any:
        value, embeddings = loss_of(*arguments)
        return (value * 1e30) ** 2, embeddings

    monkeypatch.setattr(synthetic_defects, "loss_of", overflowing)
    # It is read when something is written, so that nothing is written of a broken encoder.
    for changes, found in (
        ({}, "step 1: the loss is inf"),
        ({"log_every": 4, "checkpoint_every": 10}, "step 4: the loss is nan"),
        ({"log_every": 10}, "step 3: the loss is nan"),
    ):
        with pytest.raises(CheckFailed, match=f"{found}; lower learning_rate"):
            pretrain(image_folder, tmp_path / "run", tiny(**changes), force=True)
    assert not is_finished(tmp_path / "run") and not (tmp_path / "run" / CHECKPOINT).exists()


def test_more_devices_than_there_are_is_said(image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="--devices 0: this machine has"):
        pretrain(image_folder, tmp_path / "run", tiny(), devices=0)
