"""Write jetson/orinspect_jetson/data/predictor/layers.json: the layer tables of the published networks.

Each network of predictor_models.py is exported to ONNX (random weights, opset 17) and read like a user's own file.
Run once after the fusion rules or the networks change:  python benchmarks/predictor_layers.py [NAME...]
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import timm
import torch
import torchvision
from predictor_models import Network, networks

from orinspect_edge_runtime import durable
from orinspect_jetson.predictor.layers import LayerTable, to_json
from orinspect_jetson.predictor.onnx_graph import table_of_model

FILE = Path(__file__).parents[1] / "jetson/orinspect_jetson/data/predictor/layers.json"
TOLERANCE = 0.05
NOTE = "parameters and GMAC differ from the published ones by at most 5 %, see docs/predictor.md"


def main(names: list[str]) -> None:
    """Build the named tables, all without names; the others are kept."""
    old = {row["name"]: row for row in json.loads(FILE.read_text())["tables"]} if FILE.exists() else {}
    for name in names or networks():
        table = build(networks()[name])
        old[name] = to_json(table)
        size = f"{table.parameters / 1e6:8.2f} M {table.macs / 1e9:8.2f} GMAC {table.kernels:4} kernels"
        print(f"{name:30} {size}", flush=True)
        made = {"torch": torch.__version__, "timm": timm.__version__, "torchvision": torchvision.__version__}
        head = {"made_with": made | {"onnx": onnx.__version__}, "note": NOTE}
        rows = ",\n".join(json.dumps(old[name], separators=(",", ":")) for name in networks() if name in old)
        durable.write_bytes(FILE, f'{{"_source": {json.dumps(head)},\n"tables": [\n{rows}\n]}}\n'.encode())


def build(network: Network) -> LayerTable:
    """Export one network and read its layers; checks its size against the published one."""
    model = network.make().eval()
    for parameter in model.parameters():
        # Weights that start equal (zero) would be stored once and counted once.
        torch.nn.init.normal_(parameter, std=0.02)
    kind = torch.long if len(network.shape) == 1 else torch.float32
    frame, content = torch.zeros(1, *network.shape, dtype=kind), io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (frame,), content, dynamo=False, opset_version=17, input_names=["input"])
    table = table_of_model(onnx.load_from_string(content.getvalue()), network.name)
    own = sum(p.numel() for p in model.parameters()) / 1e6
    if network.parameters is not None and abs(own / network.parameters - 1) > TOLERANCE:
        raise SystemExit(f"{network.name}: {own:.1f} M parameters, published {network.parameters}")
    if network.gmac is not None and abs(table.macs / 1e9 / network.gmac - 1) > TOLERANCE:
        raise SystemExit(f"{network.name}: {table.macs / 1e9:.2f} GMAC, published {network.gmac}")
    return replace(table, family=network.family, origin=network.origin)


if __name__ == "__main__":
    main(sys.argv[1:])
