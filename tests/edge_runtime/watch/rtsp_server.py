"""An RTSP server of moving test pictures, run by the system's Python (apt: gir1.2-gst-rtsp-server-1.0 python3-gi).

/usr/bin/python3 rtsp_server.py PORT [FPS]
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
fps = sys.argv[2] if len(sys.argv) > 2 else "25"
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate={fps}/1 "
    "! jpegenc ! rtpjpegpay name=pay0 pt=96 )"
)
factory.set_shared(True)
server.get_mount_points().add_factory("/line", factory)
server.attach(None)
print("serves", flush=True)
GLib.MainLoop().run()
