"""A parsed network: the ONNX bytes in NVIDIA's own form, always strongly typed.

The trt module is passed in: `tensorrt` of any version from 10.3 on and `tensorrt_rtx` drive the same code. Flags go by
name (their numbers shift between versions), and precision is the chosen ONNX file, never a flag.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from orinspect_edge_runtime.errors import CheckFailed

MOST_ERRORS = 3


class GraphRefused(CheckFailed):
    """TensorRT's parser does not take the graph; trying again with less memory is useless."""


@dataclass
class Parsed:
    """Everything that must live as long as the network. errors: what TensorRT logged, newest last."""

    logger: Any
    builder: Any
    network: Any
    parser: Any
    errors: list[str]


def parse(trt: Any, onnx: bytes) -> Parsed:
    """Parse ONNX bytes. Raises GraphRefused with the parser's own words."""
    errors: list[str] = []
    logger = make_logger(trt, errors)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        told = [parser.get_error(index).desc() for index in range(parser.num_errors)] or errors
        raise GraphRefused("TensorRT's parser refuses the graph: " + "; ".join(told[:MOST_ERRORS]))
    return Parsed(logger, builder, network, parser, errors)


def make_logger(trt: Any, errors: list[str]) -> Any:
    """A TensorRT logger that appends error messages to `errors` and drops the rest."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base class comes with the module
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            # An exception here would cross C++ frames and end the process.
            with contextlib.suppress(Exception):
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    errors.append(msg)

    return Logger()
