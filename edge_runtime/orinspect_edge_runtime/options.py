"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
bundle_argument = click.argument("bundle", type=PATH)
recipe_option = click.option("--recipe", help="Recipe to use; not needed when the bundle has only one.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
threads_option = click.option(
    "--threads", type=click.IntRange(0, 1024), default=0, show_default=True, help="CPU threads; 0: all cores."
)
backend_option = click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="auto (a TensorRT engine when one is fit to run, else onnxruntime), tensorrt, onnxruntime, ort-cuda, ort-trt.",
)
