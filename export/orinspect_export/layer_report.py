"""What TensorRT made of the graph: its inspector's JSON as a table of layer, kind, precision and format."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

# Words of the inspector's formats, most special first: "FP8" and "INT8" end alike.
_PRECISIONS = (
    ("int8", ("int8", "i8")),
    ("fp16", ("half", "fp16", "f16")),
    ("bf16", ("bf16", "bfloat16")),
    ("fp32", ("float", "fp32", "f32")),
    ("uint8", ("uint8", "u8")),
)


@dataclass(frozen=True)
class LayerRow:
    """One layer of the engine. precision: of its first output; format: as the inspector words it."""

    layer: str
    kind: str
    precision: str
    format: str


def read_layers(inspector_json: str) -> list[LayerRow]:
    """The rows of `get_engine_information`. An engine built without detail gives names only; damaged text gives none."""
    try:
        layers = json.loads(inspector_json).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    return [_row(layer) for layer in layers]


def precisions(rows: list[LayerRow]) -> dict[str, int]:
    """How many layers there are of each precision, the most frequent first."""
    return dict(Counter(row.precision for row in rows).most_common())


def _row(layer: Any) -> LayerRow:
    if not isinstance(layer, dict):
        return LayerRow(str(layer), "", "", "")
    outputs = layer.get("Outputs") or [{}]
    first = outputs[0] if isinstance(outputs[0], dict) else {}
    words = " ".join(str(first[key]) for key in ("Format/Datatype", "Format", "Datatype") if key in first)
    return LayerRow(str(layer.get("Name", "")), str(layer.get("LayerType", "")), _precision(words), words)


def _precision(words: str) -> str:
    tokens = words.lower().replace("/", " ").replace(":", " ").split()
    for precision, names in _PRECISIONS:
        if any(name in tokens for name in names):
            return precision
    return ""
