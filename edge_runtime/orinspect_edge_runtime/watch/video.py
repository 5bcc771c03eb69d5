"""Video files, RTSP, MJPEG over HTTP and V4L2, decoded by PyAV."""

from __future__ import annotations

from collections.abc import Iterator

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Pixels
from orinspect_edge_runtime.watch.config import SourceConfig


def decode(config: SourceConfig, name: str) -> Iterator[Pixels]:
    """Pictures, uint8 RGB, until the end. Raises InputError: not there, not a video, silent for longer than timeout_s."""
    import av

    rtsp = {"rtsp_transport": "tcp"} if config.location.startswith("rtsp") else {}
    try:
        with av.open(config.location, format=_format(config), options=rtsp, timeout=config.timeout_s) as opened:
            if not opened.streams.video:
                raise InputError(f"{name}: no video in it")
            for picture in opened.decode(opened.streams.video[0]):
                yield picture.to_ndarray(format="rgb24")
    except av.error.ExitError as error:
        raise InputError(f"{name}: no picture for {config.timeout_s:g} s") from error
    except (OSError, ValueError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"{name}: cannot be read as video ({reason})") from error


def _format(config: SourceConfig) -> str | None:
    if config.format:
        return config.format
    return "v4l2" if config.location.startswith("/dev/video") else None
