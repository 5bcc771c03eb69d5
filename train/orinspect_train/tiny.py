"""tiny_resnet, small_resnet: encoders for images of 32 to 64 pixels, where timm's have too deep strides."""

from __future__ import annotations

from dataclasses import dataclass

from timm.models.resnet import BasicBlock
from torch import Tensor, nn

# Of the four stages: 0.3 and 1.2 million weights.
TINY, SMALL = (16, 32, 64, 128), (32, 64, 128, 256)
STRIDES = (2, 4, 8, 16)


@dataclass(frozen=True)
class StageInfo:
    """What timm's feature extractors tell about their stages, shallow to deep."""

    widths: tuple[int, ...]

    def reduction(self) -> list[int]:
        """Strides, pixels."""
        return list(STRIDES)

    def channels(self) -> list[int]:
        """Channels of the feature maps."""
        return list(self.widths)

    def module_name(self) -> list[str]:
        """The module that each stage ends with."""
        return [f"stages.{index}" for index in range(len(self.widths))]


class TinyResNet(nn.Module):
    """A stem of stride 2 and four residual blocks (He et al. 2015, arXiv 1512.03385), the last three of stride 2.

    widths: channels C_i of the stages. Gives their maps, [B, C_i, H/stride_i, W/stride_i], of float [B, 3, H, W].
    """

    def __init__(self, widths: tuple[int, ...] = TINY) -> None:
        super().__init__()
        self.feature_info = StageInfo(widths)
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        blocks = (_halving(narrow, wide) for narrow, wide in zip(widths, widths[1:], strict=False))
        self.stages = nn.ModuleList((nn.Sequential(BasicBlock(widths[0], widths[0])), *blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, shallow to deep."""
        maps, values = [], self.stem(images)
        for stage in self.stages:
            values = stage(values)
            maps.append(values)
        return maps


def _halving(narrow: int, wide: int) -> nn.Module:
    """A residual block that halves the map's sides."""
    shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, 2, bias=False), nn.BatchNorm2d(wide))
    return nn.Sequential(BasicBlock(narrow, wide, stride=2, downsample=shortcut))
