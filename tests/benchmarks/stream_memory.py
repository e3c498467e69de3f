"""Memory of lsr-infer over live streams that never end: does it grow after warm-up?

    python -m tests.benchmarks.stream_memory --clip CLIP [--model MODEL] [--minutes 20] [--streams 4]

Prints JSON. A server of our own loops the clip as MPEG-TS at its own pace over HTTP; one `lsr-infer` process segments
all streams at once into overlays and class shares (`--every` may thin them). Its resident memory is read once a second;
the growth is that of the last tenth's median over that of the tenth after warm-up, the first fifth.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av

from lsr_infer.video.reader import probe
from tests.lsr_infer.onnxfile import colour_model
from tests.lsr_infer.streamserver import serving

ROOT = Path(__file__).resolve().parents[2]
RUN = "import sys; from lsr_infer.cli import main; sys.exit(main())"


def transport_stream(clip: Path) -> bytes:
    """Put the packets of a clip into MPEG-TS, undecoded."""
    target = io.BytesIO()
    with av.open(str(clip)) as source, av.open(target, "w", format="mpegts") as container:
        video = source.streams.video[0]
        stream = container.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target.getvalue()


def resident_mib(process: int) -> float:
    """Return the resident memory of a process."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def watch(process: subprocess.Popen[str], seconds: float) -> list[float]:
    """Read the memory once a second."""
    readings = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(1)
        readings.append(resident_mib(process.pid))
    return readings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="default: a tiny one, so that the streams bound the run")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    data = transport_stream(options.clip)
    info = probe(options.clip)
    assert info.duration is not None
    with tempfile.TemporaryDirectory() as name, serving(data, rate=len(data) / info.duration) as server:
        folder = Path(name)
        model = options.model or colour_model(folder / "tiny.onnx")
        addresses = [f"{server.address}/{number}" for number in range(options.streams)]
        words = ["--model", str(model), "-o", str(folder / "out"), "--save", "overlay,json", "--json"]
        with (folder / "stderr").open("w+", encoding="utf-8") as said:  # a pipe that nobody reads would fill
            process = subprocess.Popen(
                [sys.executable, "-c", RUN, *addresses, *words, "--every", str(options.every)],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True,
            )  # fmt: skip
            readings = watch(process, 60 * options.minutes)
            process.terminate()
            out, _ = process.communicate(timeout=300)
            said.seek(0)
            err = said.read()
    print(json.dumps(report(options, readings, process.returncode, out, err), indent=2))


def report(options: argparse.Namespace, readings: list[float], code: int, out: str, err: str) -> dict[str, Any]:
    tenth = max(1, len(readings) // 10)
    warm = statistics.median(readings[2 * tenth : 3 * tenth])
    last = statistics.median(readings[-tenth:])
    document: dict[str, Any] = json.loads(out) if out else {"sources": [], "frames": 0}
    return {
        "minutes": round(len(readings) / 60, 2),
        "streams": options.streams,
        "exit_code_after_sigterm": code,
        "frames": document["frames"],
        "dropped": sum(source.get("dropped", 0) for source in document["sources"]),
        "reconnects": sum(source.get("reconnects", 0) for source in document["sources"]),
        "mib_after_warm_up": round(warm, 1),
        "mib_at_the_end": round(last, 1),
        "mib_highest": round(max(readings), 1),
        "mib_each_minute": [round(reading) for reading in readings[59::60]],
        "growth": round(last / warm - 1, 4),
        "last_words": err.strip().splitlines()[-1:] if code != 130 else [],
    }


if __name__ == "__main__":
    main()
