"""anomalib's side of vs_anomalib.py: runs in a virtual environment of its own and answers requests, a JSON line each.

Every request names a function (see the end); `wall_ms` and `cpu_ms` of an answer are of this process, one image from its
file to score and map through anomalib's own inferencer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from peer_answers import answer_requests, spent

# Side of the image files, pixels: as in peer_images.py.
SOURCE = 900
OPEN: dict[str, Any] = {}


def imports() -> dict[str, Any]:
    """What importing the inferencers costs."""
    from anomalib.deploy import OpenVINOInferencer, TorchInferencer

    del OpenVINOInferencer, TorchInferencer
    return spent()


def patchcore(name: str, backbone: str, layers: list[str], weights: str, bank: str, size: int, folder: str) -> Any:
    """Make a PatchCore with the given encoder and bank, and export it as its users do, for torch and for OpenVINO."""
    import numpy as np
    import torch

    model = untrained_patchcore(backbone, layers, weights, size)
    model.model.memory_bank = torch.from_numpy(np.load(bank))
    return export(model.eval(), name, folder)


def untrained_patchcore(backbone: str, layers: list[str], weights: str, size: int) -> Any:
    from anomalib.models import Patchcore

    model = Patchcore(
        backbone=backbone,
        layers=layers,
        pre_trained=False,
        num_neighbors=9,
        pre_processor=Patchcore.configure_pre_processor((size, size)),
        visualizer=False,
        evaluator=False,
    )
    load(model.model.feature_extractor, weights)
    return model


def embed(images: list[str], file: str, backbone: str, layers: list[str], weights: str, size: int) -> Any:
    """Write what their PatchCore would pick its bank from: the patches of all images, float32 [N, D]."""
    import numpy as np
    import torch

    model = untrained_patchcore(backbone, layers, weights, size)
    with torch.no_grad():
        np.save(file, torch.cat([model.model.train()(one) for one in prepared(model, images)]).numpy())
    return {}


def prepared(model: Any, images: list[str]) -> Any:
    """The images as their pre-processor gives them to a model, one after the other."""
    import torch
    from anomalib.data.utils import read_image

    torch.set_num_threads(1)
    for image in images:
        yield model.pre_processor.transform(read_image(image, as_tensor=True)[None])


def padim(
    name: str, backbone: str, layers: list[str], features: int, weights: str, images: list[str], size: int, folder: str
) -> Any:
    """Fit a PaDiM with the given encoder to images, and export it as its users do."""
    import torch
    from anomalib.models import Padim

    torch.manual_seed(0)
    model = Padim(
        backbone=backbone,
        layers=layers,
        pre_trained=False,
        n_features=features,
        pre_processor=Padim.configure_pre_processor((size, size)),
        visualizer=False,
        evaluator=False,
    )
    load(model.model.feature_extractor, weights)
    model.model.train()
    for one in prepared(model, images):
        model.model(one)
    model.model.fit()
    return export(model.eval(), name, folder)


def load(extractor: Any, weights: str) -> None:
    """Our trunk's weights into timm's model inside of theirs: every one of its own must be among them."""
    from safetensors.torch import load_file

    result = extractor.feature_extractor.load_state_dict(load_file(weights), strict=False)
    if result.missing_keys:
        raise ValueError(f"weights without a value: {result.missing_keys[:3]}")


def export(model: Any, name: str, folder: str) -> Any:
    torch_file = model.to_torch(Path(folder, name))
    # By default their export has a static batch of 2 with this torch, which their inferencer cannot feed.
    batch_of_one = {"dynamic_axes": {}, "dynamic_shapes": None}
    # Their graph resizes by itself: its input has the size of the image files.
    openvino_file = model.to_openvino(Path(folder, name), input_size=(SOURCE, SOURCE), onnx_kwargs=batch_of_one)
    return {"torch": str(torch_file), "openvino": str(openvino_file)}


def open_model(key: str, kind: str, file: str, neighbours: int = 9) -> Any:
    """Open an exported model with the inferencer of its kind, on one thread."""
    os.environ["TRUST_REMOTE_CODE"] = "1"
    from anomalib.deploy import OpenVINOInferencer, TorchInferencer

    if kind == "torch":
        import torch

        torch.set_num_threads(1)
        OPEN[key] = TorchInferencer(path=file, device="cpu")
        if hasattr(OPEN[key].model.model, "num_neighbors"):
            OPEN[key].model.model.num_neighbors = neighbours
    else:
        OPEN[key] = OpenVINOInferencer(path=file, device="CPU", config={"INFERENCE_NUM_THREADS": 1})
    return {}


def close_model(key: str) -> Any:
    """Forget an opened model."""
    del OPEN[key]
    return {}


def predict(key: str, image: str) -> Any:
    """Score and map of an image file, with the time they took."""
    import numpy as np

    wall, cpu = time.perf_counter(), time.process_time()
    found = OPEN[key].predict(image)
    times = {"wall_ms": (time.perf_counter() - wall) * 1e3, "cpu_ms": (time.process_time() - cpu) * 1e3}
    score, heat = (np.asarray(value, np.float32) for value in (found.pred_score, found.anomaly_map))
    return times | {"score": float(score.reshape(-1)[0]), "map": np.squeeze(heat)[::8, ::8].tolist()}


def coreset(points: str, share: float, first: int) -> Any:
    """Picks of their k-centre greedy from a given first point, in the very space that is given, and the time."""
    import numpy as np
    import torch
    from anomalib.models.components import KCenterGreedy

    torch.set_num_threads(1)
    sampler = KCenterGreedy(embedding=torch.from_numpy(np.load(points)), sampling_ratio=share)
    # Their random projection would make picks that nothing can be compared with.
    sampler.model.fit = lambda embedding: None
    sampler.model.transform = lambda embedding: embedding
    randint, torch.randint = torch.randint, lambda **_: torch.tensor([first])
    start = time.process_time()
    picks = sampler.select_coreset_idxs()
    seconds = time.process_time() - start
    torch.randint = randint
    return {"picks": picks, "cpu_s": seconds} | spent()


def metrics(labels: list[int], scores: list[float]) -> Any:
    """Their image AUROC, AUPR and F1-max."""
    import torch
    from anomalib.metrics import AUPR, AUROC, F1Max

    batch = SimpleNamespace(pred_score=torch.tensor(scores), gt_label=torch.tensor(labels))
    found = {}
    for name, kind in {"auroc": AUROC, "average_precision": AUPR, "f1_max": F1Max}.items():
        metric = kind(fields=["pred_score", "gt_label"])
        metric.update(batch)
        found[name] = float(metric.compute())
    return found


def pixel_metrics(masks: list[Any], maps: list[Any]) -> Any:
    """Their pixel AUROC, and AUPRO up to false positive rates of 0.3 and 0.05, of masks and maps [N, H, W]."""
    import torch
    from anomalib.metrics import AUPRO, AUROC

    batch = SimpleNamespace(anomaly_map=torch.tensor(maps), gt_mask=torch.tensor(masks))
    fields, found = ["anomaly_map", "gt_mask"], {}
    for name, metric in {
        "pixel_auroc": AUROC(fields=fields),
        "aupro_30": AUPRO(fields=fields, fpr_limit=0.3),
        "aupro_05": AUPRO(fields=fields, fpr_limit=0.05),
    }.items():
        metric.update(batch)
        found[name] = float(metric.compute())
    return found


if __name__ == "__main__":
    answer_requests(
        (imports, patchcore, embed, padim, open_model, close_model, predict, coreset, metrics, pixel_metrics)
    )
