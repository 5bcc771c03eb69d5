"""YOLOv8, YOLO11, YOLO26 and YOLOX-S as torch modules with random weights: only their shapes matter.

Written from the architecture drawings of the papers (arXiv 2408.15857, 2410.17725, 2509.25164, 2107.08430), without
any AGPL code, and checked against the published numbers of parameters and FLOPs (predictor_layers.py refuses others).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, max_pool2d


class Conv(nn.Sequential):
    """Convolution, batch norm, activation."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, *, g: int = 1, act: type[nn.Module] | None = nn.SiLU):
        layers = [nn.Conv2d(c1, c2, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(c2)]
        super().__init__(*layers, *([] if act is None else [act()]))


class Bottleneck(nn.Module):
    """Two 3x3 convolutions with a residual."""

    def __init__(self, c: int, add: bool, ratio: float = 1.0, *, first: int = 3, act: type[nn.Module] = nn.SiLU):
        super().__init__()
        hidden = int(c * ratio)
        self.a, self.b, self.add = Conv(c, hidden, first, act=act), Conv(hidden, c, 3, act=act), add

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage block with three 1x1 convolutions (YOLOX's CSPLayer, YOLO11's C3k)."""

    def __init__(self, c1: int, c2: int, n: int, add: bool, *, first: int = 3, act: type[nn.Module] = nn.SiLU):
        super().__init__()
        c = c2 // 2
        self.a, self.b, self.out = Conv(c1, c, act=act), Conv(c1, c, act=act), Conv(2 * c, c2, act=act)
        self.body = nn.Sequential(*(Bottleneck(c, add, first=first, act=act) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.body(self.a(x)), self.b(x)], 1))


class C2f(nn.Module):
    """Cross-stage block that keeps every intermediate map; `block` makes the repeated part."""

    def __init__(self, c1: int, c2: int, n: int, ratio: float, block: Callable[[int], nn.Module]):
        super().__init__()
        c = int(c2 * ratio)
        self.a, self.out = Conv(c1, 2 * c), Conv((2 + n) * c, c2)
        self.body = nn.ModuleList(block(c) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.a(x).chunk(2, 1))
        for block in self.body:
            maps.append(block(maps[-1]))
        return self.out(torch.cat(maps, 1))


class Sppf(nn.Module):
    """Three chained 5x5 poolings, concatenated."""

    def __init__(self, c: int, add: bool = False):
        super().__init__()
        self.a, self.out, self.add = Conv(c, c // 2), Conv(c * 2, c), add

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.a(x)]
        for _ in range(3):
            maps.append(max_pool2d(maps[-1], 5, 1, 2))
        y = self.out(torch.cat(maps, 1))
        return x + y if self.add else y


class PsaBlock(nn.Module):
    """Attention over positions (heads of 64 channels, keys of 32) and a two-layer perceptron, both residual."""

    def __init__(self, c: int):
        super().__init__()
        self.heads = max(c // 64, 1)
        self.head = c // self.heads
        self.key = self.head // 2
        self.qkv = Conv(c, c + 2 * self.key * self.heads, act=None)
        self.position, self.project = Conv(c, c, 3, g=c, act=None), Conv(c, c, act=None)
        self.mlp = nn.Sequential(Conv(c, 2 * c), Conv(2 * c, c, act=None))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        split = [self.key, self.key, self.head]
        q, k, v = self.qkv(x).view(n, self.heads, 2 * self.key + self.head, h * w).split(split, 2)
        weights = (q.transpose(-2, -1) @ k * self.key**-0.5).softmax(-1)
        y = (v @ weights.transpose(-2, -1)).view(n, c, h, w) + self.position(v.reshape(n, c, h, w))
        x = x + self.project(y)
        return x + self.mlp(x)


class C2Psa(nn.Module):
    """Half of the channels pass through attention blocks."""

    def __init__(self, c: int, n: int):
        super().__init__()
        self.a, self.out = Conv(c, c), Conv(c, c)
        self.body = nn.Sequential(*(PsaBlock(c // 2) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x).chunk(2, 1)
        return self.out(torch.cat([a, self.body(b)], 1))


class Detect(nn.Module):
    """Decoupled head over three scales: boxes (distributions of `bins` for each side) and class scores."""

    def __init__(self, channels: list[int], bins: int, *, light: bool, top: int = 0, classes: int = 80):
        super().__init__()
        box, cls = max(16, channels[0] // 4, bins * 4), max(channels[0], min(classes, 100))
        self.bins, self.top, self.classes = bins, top, classes
        self.box = nn.ModuleList(
            nn.Sequential(Conv(c, box, 3), Conv(box, box, 3), nn.Conv2d(box, 4 * bins, 1)) for c in channels
        )
        self.cls = nn.ModuleList(
            nn.Sequential(
                *([Conv(c, c, 3, g=c), Conv(c, cls)] if light else [Conv(c, cls, 3)]),
                *([Conv(cls, cls, 3, g=cls), Conv(cls, cls)] if light else [Conv(cls, cls, 3)]),
                nn.Conv2d(cls, classes, 1),
            )
            for c in channels
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        boxes = torch.cat([b(x).flatten(2) for b, x in zip(self.box, maps, strict=True)], 2)
        scores = torch.cat([c(x).flatten(2) for c, x in zip(self.cls, maps, strict=True)], 2).sigmoid()
        if self.bins > 1:
            n, _, anchors = boxes.shape
            spread = boxes.view(n, 4, self.bins, anchors).transpose(2, 1).softmax(1)
            boxes = conv2d(spread, torch.arange(self.bins, dtype=torch.float32).view(1, -1, 1, 1)).view(n, 4, anchors)
        left, right = boxes.chunk(2, 1)
        both = torch.cat([torch.cat([right - left, left + right], 1) * 8.0, scores], 1)
        return both if not self.top else both.transpose(1, 2).gather(1, self._best(scores))

    def _best(self, scores: Tensor) -> Tensor:
        index = scores.amax(1).topk(self.top)[1]
        return index.unsqueeze(-1).expand(-1, -1, 4 + self.classes)


class Yolo(nn.Module):
    """YOLOv8, YOLO11 or YOLO26: the same pyramid with other blocks. size: n, s, m, l or x."""

    def __init__(self, version: int, size: str):
        super().__init__()
        depth, width, most = SIZES[8 if version == 8 else 11][size]
        c = [int(8 * -(-min(x, most) * width // 8)) for x in (64, 128, 256, 512, 1024)]
        big = size in "mlx"

        def stage(
            c1: int, c2: int, n: int, deep: bool, ratio: float = 0.5, *, add: bool = True, attend: bool = False
        ) -> C2f:
            n = max(round(n * depth), 1)
            if version == 8:
                return C2f(c1, c2, n, 0.5, lambda h: Bottleneck(h, add))
            if attend:
                return C2f(c1, c2, n, ratio, lambda h: nn.Sequential(Bottleneck(h, add, 0.5), PsaBlock(h)))
            if deep or big:
                return C2f(c1, c2, n, ratio, lambda h: C3(h, h, 2, add))
            return C2f(c1, c2, n, ratio, lambda h: Bottleneck(h, add, 0.5))

        few, many = (3, 6) if version == 8 else (2, 2)
        shapes = (c[2], c[3]) if version != 8 else (c[1], c[2])
        narrow, add = (0.5 if version == 8 else 0.25), version != 8
        self.p2 = nn.Sequential(Conv(3, c[0], 3, 2), Conv(c[0], c[1], 3, 2), stage(c[1], shapes[0], few, False, narrow))
        self.p3 = nn.Sequential(Conv(shapes[0], c[2], 3, 2), stage(c[2], shapes[1], many, False, narrow))
        self.p4 = nn.Sequential(Conv(shapes[1], c[3], 3, 2), stage(c[3], c[3], many, True))
        end = [Sppf(c[4], version == 26)] + ([] if version == 8 else [C2Psa(c[4], max(round(2 * depth), 1))])
        self.p5 = nn.Sequential(Conv(c[3], c[4], 3, 2), stage(c[4], c[4], few, True), *end)
        deep, p3_in = version == 26, shapes[1]
        self.up4 = stage(c[4] + c[3], c[3], few, deep, add=add)
        self.up3 = stage(c[3] + p3_in, c[2], few, deep, add=add)
        self.down3, self.down4 = Conv(c[2], c[2], 3, 2), Conv(c[3], c[3], 3, 2)
        self.out4 = stage(c[2] + c[3], c[3], few, deep, add=add)
        self.out5 = stage(c[3] + c[4], c[4], 1 if deep else few, True, add=add, attend=deep)
        self.head = Detect([c[2], c[3], c[4]], 1 if deep else 16, light=version != 8, top=300 if deep else 0)

    def forward(self, x: Tensor) -> Tensor:
        p3 = self.p3(self.p2(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        up4 = self.up4(torch.cat([interpolate(p5, scale_factor=2.0), p4], 1))
        out3 = self.up3(torch.cat([interpolate(up4, scale_factor=2.0), p3], 1))
        out4 = self.out4(torch.cat([self.down3(out3), up4], 1))
        return self.head([out3, out4, self.out5(torch.cat([self.down4(out4), p5], 1))])


# depth multiple, width multiple, most channels (before the width multiple)
SIZES = {
    8: {
        "n": (1 / 3, 0.25, 1024),
        "s": (1 / 3, 0.5, 1024),
        "m": (2 / 3, 0.75, 768),
        "l": (1, 1, 512),
        "x": (1, 1.25, 512),
    },
    11: {"n": (0.5, 0.25, 1024), "s": (0.5, 0.5, 1024), "m": (0.5, 1, 512), "l": (1, 1, 512), "x": (1, 1.5, 512)},
}


class YoloxS(nn.Module):
    """YOLOX-S with LeakyReLU."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.LeakyReLU

        def conv(c1: int, c2: int, k: int = 1, s: int = 1) -> Conv:
            return Conv(c1, c2, k, s, act=act)

        def csp(c1: int, c2: int, n: int = 1, add: bool = False) -> C3:
            return C3(c1, c2, n, add, first=1, act=act)

        self.stem = nn.Sequential(conv(12, 32, 3), conv(32, 64, 3, 2), csp(64, 64, 1, True))
        self.p3 = nn.Sequential(conv(64, 128, 3, 2), csp(128, 128, 3, True))
        self.p4 = nn.Sequential(conv(128, 256, 3, 2), csp(256, 256, 3, True))
        self.down5, self.spp_in, self.spp_out = conv(256, 512, 3, 2), conv(512, 256), conv(1024, 512)
        self.p5, self.lateral, self.reduce = csp(512, 512), conv(512, 256), conv(256, 128)
        self.up4, self.up3, self.out4, self.out5 = csp(512, 256), csp(256, 128), csp(256, 256), csp(512, 512)
        self.down3, self.down4 = conv(128, 128, 3, 2), conv(256, 256, 3, 2)
        self.stems = nn.ModuleList(conv(c, 128) for c in (128, 256, 512))
        self.cls = nn.ModuleList(
            nn.Sequential(conv(128, 128, 3), conv(128, 128, 3), nn.Conv2d(128, 80, 1)) for _ in "345"
        )
        self.reg = nn.ModuleList(nn.Sequential(conv(128, 128, 3), conv(128, 128, 3)) for _ in "345")
        self.box, self.obj = (nn.ModuleList(nn.Conv2d(128, n, 1) for _ in "345") for n in (4, 1))

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        p3 = self.p3(self.stem(torch.cat(corners, 1)))
        p4 = self.p4(p3)
        y = self.spp_in(self.down5(p4))
        p5 = self.lateral(self.p5(self.spp_out(torch.cat([y, *(max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13))], 1))))
        up4 = self.reduce(self.up4(torch.cat([interpolate(p5, scale_factor=2.0), p4], 1)))
        maps = [self.up3(torch.cat([interpolate(up4, scale_factor=2.0), p3], 1))]
        maps.append(self.out4(torch.cat([self.down3(maps[0]), up4], 1)))
        maps.append(self.out5(torch.cat([self.down4(maps[1]), p5], 1)))
        return torch.cat([self._scale(i, x).flatten(2) for i, x in enumerate(maps)], 2).transpose(1, 2)

    def _scale(self, i: int, x: Tensor) -> Tensor:
        x = self.stems[i](x)
        y = self.reg[i](x)
        return torch.cat([self.box[i](y), self.obj[i](y).sigmoid(), self.cls[i](x).sigmoid()], 1)
