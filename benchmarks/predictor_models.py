"""The networks behind the published latency rows, as torch modules with random weights: only their shapes matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import timm
import torch
from predictor_efficientvit import B0, B1, L0, L1, L2, XL0, XL1, Backbone, Dag, Head, sam_head
from predictor_yolo import Yolo, YoloxS
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """make: builds it. shape: of its input. parameters (1e6) and gmac: as published, None where nobody does."""

    name: str
    family: str
    origin: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    parameters: float | None = None
    gmac: float | None = None


class Bert(nn.Module):
    """BERT-large with its question-answering head; inputs are token numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(30522, 1024), nn.Parameter(torch.zeros(384, 1024))
        self.norm, self.out = nn.LayerNorm(1024), nn.Linear(1024, 2)
        self.blocks = nn.ModuleList(BertBlock() for _ in range(24))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.tokens(tokens) + self.places)
        for block in self.blocks:
            x = block(x)
        return self.out(x)


class BertBlock(nn.Module):
    """Post-norm transformer block."""

    def __init__(self, c: int = 1024, heads: int = 16):
        super().__init__()
        self.heads, self.qkv, self.project = heads, nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.norms = nn.ModuleList(nn.LayerNorm(c) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))

    def forward(self, x: Tensor) -> Tensor:
        n, length, c = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1) * (c / self.heads) ** -0.5).softmax(-1) @ v
        x = self.norms[0](x + self.project(y.transpose(1, 2).reshape(n, length, c)))
        return self.norms[1](x + self.mlp(x))


class RetinaNet(nn.Module):
    """RetinaNet, ResNeXt-50 32x4d, 264 classes (the MLPerf one), without the suppression of doubles."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.models.detection.retinanet import RetinaNetHead
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        options = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256), "trainable_layers": 5}
        self.backbone = resnet_fpn_backbone(backbone_name="resnext50_32x4d", weights=None, **options)
        self.head = RetinaNetHead(256, 9, 264)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.head(list(self.backbone(x).values()))
        return found["cls_logits"].sigmoid(), found["bbox_regression"]


def mobile_sam() -> nn.Module:
    """TinyViT-5M as in MobileSAM (arXiv 2306.14289): its last stage keeps stride 16; then SAM's neck."""
    net = timm.create_model("tiny_vit_5m_224", num_classes=0, global_pool="")
    net.stages[3].downsample.conv2.conv.stride = (1, 1)
    net.head = nn.Sequential(nn.Conv2d(320, 256, 1), nn.Conv2d(256, 256, 3, padding=1))
    return net


def siglip() -> nn.Module:
    """The vision tower of SmolVLA: SigLIP ViT-B/16 at 512 pixels."""
    return timm.create_model("vit_base_patch16_siglip_512", num_classes=0, global_pool="")


SINGLE = [
    Network("resnet50", "ResNet-50", "timm", lambda: timm.create_model("resnet50"), (3, 224, 224), 25.6, 4.1),
    Network("retinanet", "RetinaNet", "torchvision", RetinaNet, (3, 800, 800)),
    Network("bert-99", "BERT-large", "written here", Bert, (384,), 335.0),
    Network("MobileSAM encoder", "TinyViT", "timm", mobile_sam, (3, 1024, 1024)),
    Network("SmolVLA vision tower", "SigLIP", "timm", siglip, (3, 512, 512), 86.0),
    Network("YOLOX-S (LeakyReLU)", "YOLOX", "written here", YoloxS, (3, 640, 640), 9.0, 13.4),
]
# name, backbone, head, (height, width), published parameters in 1e6, published GMAC
DAGS: list[tuple[str, Backbone, Head, tuple[int, int], float, float]] = [
    ("B0 seg", B0, Head(32, 1, 19, 4, 4), (1024, 2048), 0.7, 4.4),
    ("B1 seg", B1, Head(64, 3, 19, 4, 4), (1024, 2048), 4.8, 25.0),
    ("B1 seg 512", B1, Head(64, 3, 150, 4), (512, 512), 4.8, 3.1),
    ("L1 seg", L1, Head(256, 3, 19, 1), (1024, 2048), 40.0, 282.0),
    ("L2 seg", L2, Head(256, 5, 19, 1), (1024, 2048), 53.0, 396.0),
    ("L1 seg 512", L1, Head(128, 3, 150, 4, 8), (512, 512), 40.0, 36.0),
    ("L2 seg 512", L2, Head(128, 3, 150, 4, 8), (512, 512), 51.0, 45.0),
    ("SAM-L0 encoder", L0, sam_head(4), (512, 512), 31.0, 35.0),
    ("SAM-L1 encoder", L1, sam_head(8), (512, 512), 44.0, 49.0),
    ("SAM-L2 encoder", L2, sam_head(12), (512, 512), 57.0, 69.0),
    ("SAM-XL0 encoder", XL0, sam_head(6, xl=True), (1024, 1024), 113.0, 185.0),
    ("SAM-XL1 encoder", XL1, sam_head(12, xl=True), (1024, 1024), 199.0, 322.0),
]
# pixels: GMAC of B1 and B3
CLASSIFIERS = {224: (0.52, 4.0), 256: (0.68, 5.2), 288: (0.86, 6.5)}
# version, sizes: parameters in 1e6, GFLOP
YOLO = {
    8: {"n": (3.2, 8.7)},
    11: {"n": (2.6, 6.5), "s": (9.4, 21.5), "m": (20.1, 68.0), "l": (25.3, 86.9), "x": (56.9, 194.9)},
    26: {"n": (2.4, 5.4), "s": (9.5, 20.7), "m": (20.4, 68.2), "l": (24.8, 86.4), "x": (55.7, 193.9)},
}


def networks() -> dict[str, Network]:
    """All of them by name."""
    found = [*SINGLE, *_dags(), *_classifiers(), *_yolos()]
    return {network.name: network for network in found}


def _dags() -> Iterator[Network]:
    for name, net, head, size, parameters, gmac in DAGS:
        family = f"EfficientViT-{'L' if net.fused else 'B'}"
        make = lambda net=net, head=head: Dag(net, head)  # noqa: E731
        yield Network(f"EfficientViT-{name}", family, "timm + head", make, (3, *size), parameters, gmac)


def _classifiers() -> Iterator[Network]:
    for pixels, gmacs in CLASSIFIERS.items():
        for size, parameters, gmac in (("b1", 9.1, gmacs[0]), ("b3", 49.0, gmacs[1])):
            make = lambda size=size: timm.create_model(f"efficientvit_{size}")  # noqa: E731
            name = f"EfficientViT-{size.upper()} cls {pixels}"
            yield Network(name, "EfficientViT-B", "timm", make, (3, pixels, pixels), parameters, gmac)


def _yolos() -> Iterator[Network]:
    for version, sizes in YOLO.items():
        family = f"YOLO{'v' if version == 8 else ''}{version}"
        for size, (parameters, gflop) in sizes.items():
            make = lambda version=version, size=size: Yolo(version, size)  # noqa: E731
            yield Network(f"{family}{size}", family, "written here", make, (3, 640, 640), parameters, gflop / 2)
