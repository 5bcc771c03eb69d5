"""An encoder fused with its heads, in every precision that passes the gate, and how far each is from float32.

Heads that look at other patches have an encoder of their own here: the student's graph is lowered by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orinspect_edge_runtime.heads import HEADS
from orinspect_edge_runtime.preprocess import list_images
from orinspect_export.decisions import features_of
from orinspect_export.gate_journal import GateJournal
from orinspect_export.graph import EncoderGraph
from orinspect_export.head_graph import attach_head
from orinspect_export.images import ExportImages
from orinspect_export.lowering import Lowered, lower_precisions
from orinspect_export.parity import compare

if TYPE_CHECKING:
    import onnx

    from orinspect_export.exporter import ExportOptions


@dataclass(frozen=True)
class Fused:
    """heads: those that this encoder is for. journal: of the gate's measurements, to be dropped when all is done."""

    encoder: EncoderGraph
    heads: tuple[str, ...]
    lowered: Lowered
    journal: GateJournal

    @property
    def models(self) -> dict[str, onnx.ModelProto]:
        """The encoder by precision."""
        return {"fp32": self.encoder.model} | self.lowered.models

    @property
    def refused(self) -> dict[str, str]:
        """Why a precision was left out, by its name (see `name`)."""
        whose = "" if self.heads == HEADS else f"the {self.heads[0]}'s "
        return {self.name(precision): whose + why for precision, why in self.lowered.refused.items()}

    def name(self, precision: str) -> str:
        """What a precision is called in a report on all graphs: `int8`, or `student int8`."""
        return precision if self.heads == HEADS else f"{self.heads[0]} {precision}"

    def only(self, precisions: Collection[str]) -> Fused:
        """Without the other precisions."""
        models, refused = (
            {name: value for name, value in found.items() if name in precisions}
            for found in (self.lowered.models, self.lowered.refused)
        )
        return replace(self, lowered=replace(self.lowered, models=models, refused=refused))

    def graphs(self) -> dict[tuple[str, str], bytes]:
        """ONNX bytes by head and precision."""
        spec, preprocess = self.encoder.spec, self.encoder.preprocess
        return {
            (head, precision): attach_head(model, head, spec, preprocess).SerializeToString()
            for precision, model in self.models.items()
            for head in self.heads
        }

    def parity(self, images: ExportImages) -> dict[str, dict[str, Any]]:
        """Figures of every lower precision against float32, by its name, with what the gate noted of it."""
        exact, notes = features_of(self.encoder.model, images.held_out), self.lowered.notes
        return {
            self.name(precision): notes.get(precision, {}) | asdict(compare(exact, features_of(model, images.held_out)))
            for precision, model in self.lowered.models.items()
        }


def fuse(
    encoder: EncoderGraph,
    heads: tuple[str, ...],
    images: ExportImages,
    options: ExportOptions,
    out: Path,
    tell: Callable[[float], None],
) -> Fused:
    """Lower the encoder for its heads. out: the bundle that is made, beside which the gate's journal lies."""
    part = "" if heads == HEADS else f".{heads[0]}"
    journal = GateJournal(out.with_name(f".{out.name}{part}.gate.jsonl"), _measured_on(encoder, images, options))
    return Fused(encoder, heads, lower_precisions(encoder, images, options, tell, journal.remember), journal)


def _measured_on(encoder: EncoderGraph, images: ExportImages, options: ExportOptions) -> bytes:
    """What the gate's measurements depend on; the budget is none of it."""
    labelled = [] if options.labelled is None else list_images([options.labelled])
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in labelled]
    stated = repr(
        (version("orinspect"), options.calibrator_in_use, str(options.modelopt), options.seed, files)
    ).encode()
    return b"".join(
        [stated, encoder.model.SerializeToString(), images.calibration.tobytes(), images.held_out.tobytes()]
    )
