"""The deep learning accelerator: which layers it would take, told before a long build, not after.

TensorRT moves what the DLA cannot do to the GPU without a word, and every such change of place costs copies: engines
six times slower than on the GPU alone were seen. Nothing here has been run on hardware yet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from orinspect_edge_runtime.errors import CheckFailed

# Strongly typed networks on the DLA: from TensorRT 11.4.1 on.
OLDEST_TENSORRT = (11, 4, 1)
# Each change between DLA and GPU costs a copy and a synchronisation: above this the GPU alone is quicker.
MOST_CHANGES = 3


@dataclass(frozen=True)
class Placement:
    """One layer of the parsed network. device: "DLA" or "GPU"."""

    layer: str
    kind: str
    device: str


@dataclass(frozen=True)
class DlaReport:
    """Where every layer would run, in the network's order."""

    placements: tuple[Placement, ...]

    @property
    def on_gpu(self) -> tuple[Placement, ...]:
        """The layers that fall back to the GPU."""
        return tuple(p for p in self.placements if p.device == "GPU")

    @property
    def changes(self) -> int:
        """How often the data changes between DLA and GPU."""
        devices = [p.device for p in self.placements]
        return sum(a != b for a, b in zip(devices, devices[1:], strict=False))

    @property
    def words(self) -> str:
        """The report in one line."""
        total, gpu = len(self.placements), len(self.on_gpu)
        return f"{total - gpu} of {total} layers on the DLA, {self.changes} changes between DLA and GPU"

    def to_json(self) -> dict[str, Any]:
        """For layers.json."""
        return {"placements": [asdict(p) for p in self.placements], "changes": self.changes}


def require_dla(trt: Any, builder: Any) -> None:
    """Raise CheckFailed, in one sentence, where a strongly typed graph cannot be built for the DLA."""
    numbers = tuple(int(part) for part in str(trt.__version__).split(".")[:3] if part.isdigit())
    if trt.__name__.startswith("tensorrt_rtx"):
        raise CheckFailed("TensorRT for RTX has no DLA: leave --dla out")
    if numbers < OLDEST_TENSORRT:
        raise CheckFailed(
            f"TensorRT {trt.__version__} cannot build typed graphs for the DLA (11.4.1, JetPack 7.2.2, is the first "
            "that can): leave --dla out"
        )
    if builder.num_DLA_cores < 1:
        raise CheckFailed("this module has no DLA, or its compiler libnvdla_compiler.so is missing: leave --dla out")


def set_dla(trt: Any, config: Any, core: int) -> None:
    """Ask for the DLA, with the GPU for what it cannot do."""
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def report(network: Any, config: Any) -> DlaReport:
    """Ask TensorRT of every layer whether the DLA takes it."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return DlaReport(
        tuple(
            Placement(layer.name, str(layer.type).rpartition(".")[2], "DLA" if config.can_run_on_DLA(layer) else "GPU")
            for layer in layers
        )
    )


def require_worthwhile(found: DlaReport) -> None:
    """Raise CheckFailed when the engine would be slower than on the GPU alone: convolutions fall back, or many changes."""
    convolutions = [p for p in found.on_gpu if p.kind == "CONVOLUTION"]
    if not convolutions and found.changes <= MOST_CHANGES:
        return
    first = ", ".join(p.layer for p in (convolutions or found.on_gpu)[:3])
    raise CheckFailed(
        f"an engine for the DLA would be slower than one for the GPU: {found.words} (first on the GPU: {first}); "
        "leave --dla out, or pass --dla-force to build it nevertheless"
    )
