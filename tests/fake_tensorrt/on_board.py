"""orinspect on a replayed board: BOARD is its folder, TensorRT a recording, CUDA the fake driver.

python -m fake_tensorrt.on_board build BUNDLE [OPTIONS]     the real command
python -m fake_tensorrt.on_board check BUNDLE               the real command
python -m fake_tensorrt.on_board detect BUNDLE BACKEND IMAGE    a line of JSON: score, description
"""

from __future__ import annotations

import json
import os
import sys
import types

from fake_tensorrt import recorder

tensorrt = types.ModuleType("tensorrt")
vars(tensorrt).update(recorder.NAMES)


def main(action: str, *arguments: str) -> None:
    from orinspect_edge_runtime import cli, device
    from orinspect_jetson.device import read_device
    from orinspect_jetson.host import Host

    board = Host(os.environ["BOARD"])
    device.this_device = lambda: read_device(board)
    sys.modules["tensorrt"] = tensorrt
    if action == "build":
        from orinspect_export import build_cli, build_process

        # The process that builds cannot inherit a module: it imports the recorder under its own name.
        start = build_process.write_request
        build_process.write_request = lambda folder, _, *rest: start(folder, "fake_tensorrt.recorder", *rest)
        cli.orinspect = build_cli.build
        sys.argv[1:] = arguments
        cli.main()
    if action == "check":
        sys.argv[1:] = ["check", *arguments]
        cli.main()
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.errors import OrinspectError

    try:
        with Detector.load(arguments[0], backend=arguments[1]) as detector:
            verdict = detector(arguments[2])
            print(json.dumps({"score": verdict.score, "description": detector.description}))
    except OrinspectError as error:
        sys.exit(f"orinspect: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
