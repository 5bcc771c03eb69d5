"""The TensorRT of JetPack 5, as far as it gets here."""

__version__ = "8.5.2"
