"""EfficientViT's segmentation and SAM networks: timm's backbones with the heads of arXiv 2205.14756 and 2402.05008."""

from __future__ import annotations

from dataclasses import dataclass

from predictor_yolo import Conv
from timm.models.efficientvit_mit import EfficientVit, EfficientVitLarge, EfficientVitLargeStage, GELUTanh
from torch import Tensor, nn
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Backbone:
    """Widths and depths of the stages; fused: one of the large (L, XL) nets."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    fused: bool


LARGE = (32, 64, 128, 256, 512)
B0 = Backbone((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), False)
B1 = Backbone((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), False)
L0 = Backbone(LARGE, (1, 1, 1, 4, 4), True)
L1 = Backbone(LARGE, (1, 1, 1, 6, 6), True)
L2 = Backbone(LARGE, (1, 2, 2, 8, 8), True)
XL0 = Backbone((*LARGE, 1024), (0, 1, 1, 2, 3, 3), True)
XL1 = Backbone((*LARGE, 1024), (1, 2, 2, 4, 6, 6), True)


@dataclass(frozen=True)
class Head:
    """Head over the last three stages. final: factor of the layer before the last, none for 0. scale: of its output."""

    width: int
    depth: int
    out: int
    expand: int
    final: int = 0
    scale: int = 8


def sam_head(depth: int, xl: bool = False) -> Head:
    """The neck of EfficientViT-SAM."""
    return Head(256, depth, 256, 4 if xl else 1, scale=16 if xl else 8)


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Dag(nn.Module):
    """EfficientViT with the head that adds its last three maps, brought to one size, and refines the sum."""

    def __init__(self, net: Backbone, head: Head):
        super().__init__()
        kind = EfficientVitLarge if net.fused else EfficientVit
        options = {"head_dim": 32 if net.fused else 16, "head_widths": (8, 8)}
        self.net = kind(widths=net.widths[:5], depths=net.depths[:5], **options)
        self.net.head, self.scale, self.extra = nn.Identity(), head.scale, nn.ModuleList()
        if len(net.widths) == 6:
            self._make_xl(net)
        self.laterals = nn.ModuleList(Conv(c, head.width, act=None) for c in net.widths[:-4:-1])
        self.middle = nn.Sequential(*(Residual(_middle(head.width, head.expand, net.fused)) for _ in range(head.depth)))
        mid, act = head.width * (head.final or 1), nn.GELU if net.fused else nn.Hardswish
        last = [Conv(head.width, mid, act=act)] if head.final else []
        self.out = nn.Sequential(*last, nn.Conv2d(mid, head.out, 1))

    def _make_xl(self, net: Backbone) -> None:
        """The XL nets have one stage more, and fused blocks where the L nets have inverted bottlenecks."""
        options = {"norm_layer": nn.BatchNorm2d, "act_layer": GELUTanh, "head_dim": 32}
        widths, depths = net.widths, net.depths
        self.net.stages[2] = EfficientVitLargeStage(widths[2], widths[3], depths[3], **options)
        last = EfficientVitLargeStage(widths[4], widths[5], depths[5], vit_stage=True, fewer_norm=True, **options)
        self.extra.append(last)

    def forward(self, x: Tensor) -> Tensor:
        size = [s // self.scale for s in x.shape[-2:]]
        x, maps = self.net.stem(x), []
        for stage in [*self.net.stages, *self.extra]:
            x = stage(x)
            maps.append(x)
        parts = [conv(part) for conv, part in zip(self.laterals, maps[:-4:-1], strict=True)]
        up = [p if list(p.shape[-2:]) == size else interpolate(p, size, mode="bilinear") for p in parts]
        return self.out(self.middle(up[0] + up[1] + up[2]))


def _middle(c: int, expand: int, fused: bool) -> nn.Module:
    mid = c * expand
    if fused:
        return nn.Sequential(Conv(c, mid, 3, act=nn.GELU), Conv(mid, c, act=None))
    act = nn.Hardswish
    return nn.Sequential(Conv(c, mid, act=act), Conv(mid, mid, 3, g=mid, act=act), Conv(mid, c, act=None))
