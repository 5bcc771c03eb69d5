"""tiny_resnet: an encoder of 0.3 million weights for images of 32 to 64 pixels, where timm's have too deep strides."""

from __future__ import annotations

from dataclasses import dataclass

from timm.models.resnet import BasicBlock
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 128)
STRIDES = (2, 4, 8, 16)


@dataclass(frozen=True)
class StageInfo:
    """What timm's feature extractors tell about their stages, shallow to deep."""

    def reduction(self) -> list[int]:
        """Strides, pixels."""
        return list(STRIDES)

    def channels(self) -> list[int]:
        """Channels of the feature maps."""
        return list(CHANNELS)

    def module_name(self) -> list[str]:
        """The module that each stage ends with."""
        return [f"stages.{index}" for index in range(len(CHANNELS))]


class TinyResNet(nn.Module):
    """A stem of stride 2 and four residual blocks (He et al. 2015, arXiv 1512.03385), the last three of stride 2.

    Gives the maps of its stages, [B, C_i, H/stride_i, W/stride_i], of float [B, 3, H, W].
    """

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = StageInfo()
        self.stem = nn.Sequential(
            nn.Conv2d(3, CHANNELS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(CHANNELS[0]), nn.ReLU()
        )
        self.stages = nn.ModuleList(_block(index) for index in range(len(CHANNELS)))
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


def _block(index: int) -> nn.Module:
    """A residual block; from the second on it halves the map."""
    if index == 0:
        return nn.Sequential(BasicBlock(CHANNELS[0], CHANNELS[0]))
    narrow, wide = CHANNELS[index - 1], CHANNELS[index]
    shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, 2, bias=False), nn.BatchNorm2d(wide))
    return nn.Sequential(BasicBlock(narrow, wide, stride=2, downsample=shortcut))
