"""AnomaVision's side of vs_anomalib.py: runs in a virtual environment of its own and answers requests, a JSON line each.

Every request names a function (see the end). An image goes the way of `anomavision detect`: AnodetDataset reads it and
brings it to the model's size, ModelWrapper scores it, the map is blurred; it stays at the model's size.
"""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path
from typing import Any

from peer_answers import answer_requests, spent

OPEN: dict[str, Any] = {}
# As their config.yml has it.
BATCH, OPSET, BLUR = 2, 18, {"kernel_size": 33, "sigma": 4}


def imports() -> dict[str, Any]:
    """What importing their inference costs."""
    import anomavision
    from anomavision.inference.model.wrapper import ModelWrapper

    del anomavision, ModelWrapper
    return spent()


def fit(scorer: str, weights: str, images: list[str], size: int, folder: str, **options: Any) -> dict[str, str]:
    """Fit `padim` or `patchcore` with ResNet-18 as `anomavision train` does, and export it as `anomavision export`.

    options: of their model. Gives the file, or folder, by kind.
    """
    import anomavision
    import torch
    from anomavision.export import ModelExporter
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    torch.manual_seed(0)
    place_weights(weights)
    kinds = {"padim": anomavision.Padim, "patchcore": anomavision.PatchCore}
    model = kinds[scorer](backbone="resnet18", device=torch.device("cpu"), **options)
    model.fit(DataLoader(dataset(images, size), batch_size=BATCH, shuffle=False))
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    torch.save(model, out / "model.pt")
    exporter = ModelExporter(out / "model.pt", out, logging.getLogger("anomavision"), device="cpu")
    shape = (1, 3, size, size)
    onnx = exporter.export_onnx(shape, "model.onnx", opset_version=OPSET, dynamic_batch=True)
    # OpenVINO has no part of the graph that their PatchCore needs for batches of any size.
    openvino = exporter.export_openvino(shape, "model_openvino", dynamic_batch=True) or exporter.export_openvino(
        shape, "model_openvino_static", dynamic_batch=False
    )
    made = {"torch": out / "model.pt", "onnx": onnx, "openvino": openvino}
    if None in made.values():
        raise RuntimeError("an export failed; see peer.log")
    return {kind: str(file) for kind, file in made.items()}


def place_weights(weights: str) -> None:
    """Our ResNet-18's weights as the file that torchvision would download; what ours has none of keeps torchvision's.

    All stages must be among ours.
    """
    import torch
    from safetensors.torch import load_file
    from torchvision.models import ResNet18_Weights, resnet18

    state, own = resnet18().state_dict(), load_file(weights)
    missing = [name for name in state if name not in own and not name.startswith("fc.")]
    if missing:
        raise ValueError(f"weights without a value: {missing[:3]}")
    file = Path(torch.hub.get_dir(), "checkpoints", ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state | {name: own[name] for name in state if name in own}, file)


def dataset(images: list[str], size: int) -> Any:
    """Their data set of some image files of a folder."""
    import anomavision

    found = anomavision.AnodetDataset(str(Path(images[0]).parent), resize=[size, size], crop_size=None)
    found.image_paths = list(images)
    return found


def open_model(key: str, kind: str, file: str) -> Any:
    """Open an exported model with their wrapper, on one thread."""
    import torch
    from anomavision.inference.model.wrapper import ModelWrapper

    torch.set_num_threads(1)
    if kind == "onnx":
        _one_thread()
    OPEN[key] = ModelWrapper(file, "cpu")
    return {}


@functools.cache
def _one_thread() -> None:
    """onnxruntime would start a thread a core of the machine, though the process may use one."""
    import onnxruntime

    opened = onnxruntime.InferenceSession

    def open_one(file: str, sess_options: Any, **rest: Any) -> Any:
        sess_options.intra_op_num_threads = sess_options.inter_op_num_threads = 1
        return opened(file, sess_options=sess_options, **rest)

    onnxruntime.InferenceSession = open_one


def close_model(key: str) -> Any:
    """Forget an opened model."""
    OPEN.pop(key).close()
    return {}


def predict(key: str, image: str, size: int = 224) -> Any:
    """Score and map of an image file, with the time they took."""
    import numpy as np
    from anomavision.utils import adaptive_gaussian_blur

    files = dataset([image], size)
    wall, cpu = time.perf_counter(), time.process_time()
    scores, maps = OPEN[key].predict(files[0][0][None])
    heat = adaptive_gaussian_blur(maps, **BLUR)
    times = {"wall_ms": (time.perf_counter() - wall) * 1e3, "cpu_ms": (time.process_time() - cpu) * 1e3}
    return times | {"score": float(np.asarray(scores)[0]), "map": np.squeeze(np.asarray(heat))[::8, ::8].tolist()}


if __name__ == "__main__":
    answer_requests((imports, fit, open_model, close_model, predict))
