"""Serves a test picture by RTSP with GStreamer's server; run by the system's Python, which has its bindings.

    python3 rtsp_server.py --port 8554 [--udp] [--password USER:PASSWORD] [--size 320x240] [--fps 25] [--change 160x120]

Prints "ready" once it listens. With --change the picture's size changes after two seconds of each connection.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def caps(size: str, fps: int) -> str:
    width, height = size.split("x")
    return f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", required=True)
    parser.add_argument("--udp", action="store_true")
    parser.add_argument("--password")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--change")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=options.port)
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP if options.udp else GstRtsp.RTSPLowerTrans.TCP)
    factory.set_launch(
        f"( videotestsrc is-live=true ! videoscale ! capsfilter name=size caps={caps(options.size, options.fps)}"
        " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25"
        " ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
    )
    if options.change:

        def change(media: GstRtspServer.RTSPMedia) -> bool:
            size = media.get_element().get_by_name("size")
            size.set_property("caps", Gst.Caps.from_string(caps(options.change, options.fps)))
            return False

        factory.connect("media-configure", lambda _, media: GLib.timeout_add(2000, change, media))
    if options.password:
        user, password = options.password.split(":")
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", user)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role(user, "media.factory.access", True)
        permissions.add_permission_for_role(user, "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/road", factory)
    assert server.attach(None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
