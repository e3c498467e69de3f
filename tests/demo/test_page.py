"""The page as a program meets it: results, refusals, limits, passwords, start and end."""

import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from lsr_infer import Segmenter
from lsr_infer.io.images import read_image
from tests.demo.conftest import REPOSITORY, STREET, Page, running_page

pytest.importorskip("gradio", reason="the extra demo is not installed")
client_errors = pytest.importorskip("gradio_client.exceptions")

MOVING = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".gif", ".h264", ".ts"}
SAMPLE = ("bitflip.jpg", "bitflip.png", "empty.jpg", "text_renamed.png", "text_renamed.mp4", "truncated_half.mp4")


def handled(path: Path) -> Any:
    from gradio_client import handle_file

    return handle_file(path)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(client_errors.AppError) as error:
        call()
    return str(error.value)


def test_a_picture_by_program_is_what_the_segmenter_gives(page: Page) -> None:
    slider, facts, shares, overlay, mask, _, archive, *_ = page.client().predict(
        handled(STREET), api_name="/segment_image"
    )
    expected = Segmenter("street", "cpu")(read_image(STREET))
    assert np.array_equal(cv2.imread(overlay), expected.overlay(read_image(STREET)))
    assert Path(mask).read_bytes() == expected.to_png()
    assert cv2.imread(slider[1]).shape == (256, 512, 3)
    assert "512 x 256" in facts
    assert "agree on" in facts
    first = max(expected.shares(), key=lambda name: expected.shares()[name])
    assert shares["data"][0][1] == first
    assert Path(archive).stat().st_size > 1000


def test_one_model_stands_beside_the_original(page: Page) -> None:
    slider, facts, *_ = page.client().predict(handled(STREET), before="", api_name="/segment_image")
    original = cv2.imread(slider[0]).astype(int)
    assert np.abs(original - read_image(STREET)).mean() < 4  # a JPEG of it
    assert "agree" not in facts


def test_a_clip_by_program_comes_whole(page: Page, clip_of: Callable[[int], Path]) -> None:
    video, facts, plot, clip, masks, shares = page.client().predict(
        handled(clip_of(12)), every="every 2nd frame", api_name="/segment_video"
    )
    assert "6 frames" in facts
    assert cv2.VideoCapture(clip).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert len(Path(shares).read_text(encoding="utf-8").splitlines()) == 7
    assert Path(masks).suffix == ".zip"
    assert plot
    assert video


def test_two_models_are_compared(page: Page) -> None:
    facts, difference, table = page.client().predict(handled(STREET), api_name="/compare")
    assert "agree on" in facts
    assert cv2.imread(difference).shape == (256, 512, 3)
    assert table["data"][0][0] == "time for this picture, median of 5"
    assert all(value.endswith(" ms") for value in table["data"][0][1:])
    sentence = refusal(lambda: page.client().predict(handled(STREET), before="", api_name="/compare"))
    assert "Choose two different models" in sentence


def test_models_are_listed(page: Page) -> None:
    rows = page.client().predict(api_name="/models")
    names = ("street-source", "street", "toytown-source", "toytown")
    assert [row[1:3] for row in rows] == [[f"{name}.onnx", "ready"] for name in names]
    sentence = refusal(lambda: page.client().predict(handled(STREET), after="gone", api_name="/segment_image"))
    assert sentence == "The model gone is not in the folder. Choose another one."


def test_pictures_and_clips_beyond_the_limits(page: Page, tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), np.zeros((3001, 3000, 3), np.uint8))
    client = page.client()
    sentence = refusal(lambda: client.predict(handled(large), api_name="/segment_image"))
    assert sentence == "large.png has 3000 x 3001 pixels; at most 9 million are decoded. Reduce it."
    sentence = refusal(lambda: client.predict(handled(clip_of(320)), api_name="/segment_video"))
    assert sentence == "drive_320.mp4 lasts 32 s; at most 30 s are accepted. Shorten it."
    heavy = tmp_path / "heavy.jpg"
    heavy.write_bytes(STREET.read_bytes() + bytes(8_000_000))
    with pytest.raises(ValueError, match="exceeds the maximum file size of 8000000 bytes"):
        client.predict(handled(heavy), api_name="/segment_image")
    form = {"content-type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="heavy.jpg"\r\n\r\n'
    assert page.status("/gradio_api/upload", form, head + bytes(8_100_000) + b"\r\n--x--\r\n") == 413


def test_a_file_is_uploaded_and_never_fetched_or_read_from_elsewhere(page: Page) -> None:
    asked: list[str] = []

    class Elsewhere(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = {"path": f"http://127.0.0.1:{server.server_port}/street.jpg", "meta": {"_type": "gradio.FileData"}}
        client, sent = page.client(), handled(STREET)
        for name, arguments in (
            ("/segment_image", {"image": handled(address["path"])}),
            ("/segment_image", {"image": sent, "before": address}),
            ("/segment_image", {"image": sent, "view": [{"path": "", "deep": address}]}),
            ("/segment_video", {"video": handled(address["path"])}),
            ("/compare", {"image": handled(address["path"])}),
            ("/segment_image", {"image": {"path": str(STREET)}}),  # of the server, which has not been uploaded
            ("/segment_image", {"image": {"path": f"{page.root}/../../{STREET}"}}),
        ):
            sentence = refusal(lambda: client.predict(**arguments, api_name=name))  # noqa: B023 - called at once
            assert sentence == "Upload the file: addresses and paths are not accepted.", (name, arguments)
        server.shutdown()
    for form in ("file=http", "file=https", "file/http", "file/https"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{page.address}/gradio_api/{form}://example.org/street.jpg")
        assert refused.value.read() == b"Files of other hosts are not handed on."
    assert asked == []


@pytest.mark.slow
def test_a_disk_without_room_takes_no_upload_and_no_result(tmp_path: Path) -> None:
    full = "The server has no room for files at the moment. Try again later."
    with running_page(tmp_path, "--free-bytes", str(1 << 60)) as page:
        form = {"content-type": "multipart/form-data; boundary=x"}
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
        for path in ("/gradio_api/upload", "/gradio_api/process_recording"):
            assert page.status(path, form, head + b"\r\n--x--\r\n") == 507
        example = next(page.root.glob("*/camera_*.jpg"))
        assert refusal(lambda: page.client().predict({"path": str(example)}, api_name="/segment_image")) == full
        assert page.results() == []


def test_broken_files_get_a_sentence(page: Page, shared: Callable[[str], Path]) -> None:
    folder = shared("data/badmedia/derived")
    check_all(page, [folder / name for name in SAMPLE], refused=5)


def test_a_photo_in_tiles_is_a_picture_and_no_clip(page: Page, shared: Callable[[str], Path], tmp_path: Path) -> None:
    still = shared("data/cases/media/heic_grid.heic")
    slider, facts, *_ = page.client().predict(handled(still), api_name="/segment_image")
    expected = read_image(still)
    height, width = expected.shape[:2]
    assert f"{width} x {height}" in facts
    assert cv2.imread(slider[1]).shape == expected.shape
    named = tmp_path / "named.mp4"
    shutil.copyfile(still, named)
    assert page.client().predict(handled(named), api_name="/segment_image")[1] == facts.replace(still.name, named.name)
    for path in (still, named):
        before = page.results()
        sentence = refusal(lambda: page.client().predict(handled(path), api_name="/segment_video"))  # noqa: B023
        assert sentence == f"{path.name} is a picture, no video. Send it on the tab Picture."
        assert page.results() == before


@pytest.mark.slow
def test_every_broken_or_hostile_file_gets_a_sentence(page: Page, shared: Callable[[str], Path]) -> None:
    """All of them, as pictures or as videos by their names; some are odd but whole, and are segmented."""
    folder = shared("data/badmedia")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".md", ".tsv")]
    assert len(files) > 100
    check_all(page, files, refused=50)


def check_all(page: Page, files: list[Path], refused: int) -> None:
    client, before, sentences = page.client(), set(page.results()), {}
    for path in files:
        try:
            moving = path.suffix.lower() in MOVING
            client.predict(handled(path), api_name="/segment_video" if moving else "/segment_image")
        except client_errors.AppError as error:
            sentences[path] = str(error)
    assert len(sentences) >= refused
    assert len(set(page.results()) - before) == len(files) - len(sentences), "what was refused left nothing"
    for path, sentence in sentences.items():
        assert sentence.endswith("."), (path, sentence)
        assert "server" not in sentence, (path, sentence)  # neither a crash nor a fault of our own
        assert str(page.folder) not in sentence, (path, sentence)
    assert page.status() == 200


def test_a_cancelled_clip_is_gone_within_a_second(page: Page, clip_of: Callable[[int], Path]) -> None:
    job = page.client().submit(handled(clip_of(299)), api_name="/segment_video")
    while not (job.status().progress_data and job.status().progress_data[0].index):
        time.sleep(0.05)
    workers, results, start = set(page.workers()), len(page.working()), time.monotonic()
    assert job.cancel()
    while set(page.workers()) == workers or len(page.working()) == results:
        assert time.monotonic() - start < 1.0
        time.sleep(0.01)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page with a password, little time for a picture, and a short memory."""
    from settings import hash_password

    folder = tmp_path_factory.mktemp("strict")
    (folder / "hash").write_text(hash_password("secret"), encoding="utf-8")
    options = ("--auth", f"ann:{folder / 'hash'}", "--picture-seconds", "4", "--session-seconds", "2")
    options += ("--queue", "3", "--client-queue", "2")
    with running_page(folder, *options) as running:
        yield running


def test_a_password_is_asked_for_and_another_name_of_the_host_refused(strict: Page) -> None:
    assert strict.status("/config") == 401
    assert strict.status("/config", {"Host": "elsewhere.example"}) == 400
    with pytest.raises(Exception, match="Could not login"):
        strict.client(auth=("ann", "guess"))
    assert strict.client(auth=("ann", "secret")).predict(api_name="/models")


def test_results_are_deleted_once_they_are_old(strict: Page) -> None:
    client = strict.client(auth=("ann", "secret"))
    assert client.predict(handled(STREET), api_name="/segment_image")
    deadline = time.monotonic() + 30
    while strict.results():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert client.predict(handled(STREET), api_name="/segment_image"), "models and examples stay"


def test_a_decoder_that_hangs_is_killed_and_the_page_goes_on(strict: Page) -> None:
    client, hung = strict.client(auth=("ann", "secret")), strict.workers()
    assert len(hung) == 2  # for pictures, and for a video
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    sentence = refusal(lambda: client.predict(handled(STREET), api_name="/segment_image"))
    assert sentence == "This took longer than 4 s and was stopped. Send less."
    (video,) = set(hung) & set(strict.workers())  # had nothing to do
    os.kill(video, signal.SIGCONT)
    assert client.predict(handled(STREET), api_name="/segment_image")


@pytest.mark.slow
def test_a_queue_is_full_by_several_addresses_alone_and_what_waits_keeps_its_file(
    strict: Page, clip_of: Callable[[int], Path]
) -> None:
    names = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    first, second, third = (strict.client(auth=("ann", "secret"), headers={"X-Forwarded-For": name}) for name in names)
    workers = strict.workers()

    def send(client: Any) -> Any:
        return client.submit(handled(clip_of(12)), api_name="/segment_video")

    def wait(*codes: str) -> None:
        while [job.status().code.name for job in jobs] != list(codes):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    deadline, jobs = time.monotonic() + 20, [send(first)]
    wait("PROCESSING")
    jobs.append(send(first))
    wait("PROCESSING", "IN_QUEUE")
    with pytest.raises(Exception, match="Please try again"):
        send(first).result()
    jobs += [send(second), send(second)]
    wait("PROCESSING", "IN_QUEUE", "IN_QUEUE", "IN_QUEUE")
    with pytest.raises(Exception, match="Queue is full! Please try again"):
        send(third).result()
    time.sleep(5)  # longer than files are kept
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    assert ["12 frames" in job.result()[1] for job in jobs] == [True] * 4


def test_a_file_that_is_gone_is_asked_for_again(strict: Page) -> None:
    gone = strict.root / "gone" / "street.jpg"
    client = strict.client(auth=("ann", "secret"))
    sentence = refusal(lambda: client.predict({"path": str(gone)}, api_name="/segment_image"))
    assert sentence == "street.jpg is no longer on the server. Send it again."


def run(*options: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(REPOSITORY / "demo" / "app.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **settings)


def test_what_cannot_be_started_says_why(page: Page, tmp_path: Path) -> None:
    for options, code, sentence in (
        (("--port", page.address.rpartition(":")[2]), 2, "is taken by another program"),
        (("--models", str(tmp_path / "none")), 2, "there is no such folder"),
        (("--pixels", "0"), 2, "--pixels is 0; allowed"),
        (("--queue", "10", "--client-queue", "10"), 2, "--client-queue is 10 and --queue 10; allowed: less than"),
        (("--auth", "ann"), 2, "--auth is USER:FILE"),
        (("--upload", "1"), 2, "unrecognized arguments"),
        (("--prot", "7"), 2, "error: unrecognized arguments: --prot 7. Did you mean --port?"),
    ):
        done = run("--port", "0", *options)
        assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr


@pytest.mark.slow
def test_share_without_an_address_ends_with_a_sentence(tmp_path: Path) -> None:
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    environment = os.environ | nowhere | {"HF_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = run("--port", "0", "--share", env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "--share: no public address could be opened. Start without it." in done.stderr
    assert not list(tmp_path.glob("lsr-demo-*"))


@pytest.mark.parametrize(("auth", "who"), [(None, "WITHOUT a password"), (print, "with the password")])
def test_a_page_that_others_reach_says_who_can_use_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, auth: Any, who: str
) -> None:
    import app
    from settings import Limits

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "threading", SimpleNamespace(Event=lambda: SimpleNamespace(wait=interrupted)))
    address, ended = "https://a.example", []
    launched = SimpleNamespace(  # in place of a public address, which a test does not open
        GRADIO_CACHE=tmp_path, share_url=address, launch=lambda **_: None, close=lambda verbose: ended.append(verbose)
    )
    options = {"host": "0.0.0.0", "port": 7860, "share": True, "auth": auth, "allow_host": []}
    with caplog.at_level("WARNING", "demo"), pytest.raises(KeyboardInterrupt):
        app._serve(launched, Limits(), options)
    assert [record.getMessage() for record in caplog.records] == [
        f"everybody who knows {address} can use this page {who}",
        f"everybody who reaches 0.0.0.0, port 7860 can use this page {who}",
    ]
    assert ended == [False]


@pytest.mark.slow  # every page of these tests ends by Ctrl-C; this one by many
def test_ctrl_c_again_and_again_is_as_good_as_once(tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    with running_page(tmp_path) as page:
        job = page.client().submit(handled(clip_of(299)), api_name="/segment_video")
        while not (job.status().progress_data and job.status().progress_data[0].index):
            time.sleep(0.05)
        deadline = time.monotonic() + 30
        while page.process.poll() is None:
            assert time.monotonic() < deadline
            os.killpg(page.process.pid, signal.SIGINT)
            time.sleep(0.02)
    assert page.process.returncode == 130  # running_page checks the log and the files


def test_help_is_quick_and_needs_no_gradio() -> None:
    code = "import sys; sys.modules['gradio'] = None; sys.argv = ['app.py', '--help']; import runpy; " \
        f"runpy.run_path({str(REPOSITORY / 'demo' / 'app.py')!r}, run_name='__main__')"  # fmt: skip
    environment = {"PYTHONPATH": str(REPOSITORY / "demo")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "--upload-bytes" in done.stdout, done.stderr


def test_no_process_and_no_file_outlives_a_killed_server(strict: Page) -> None:
    workers = strict.workers()
    strict.process.kill()
    strict.process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(strict.folder.glob("lsr-demo-*"))
    with running_page(strict.folder) as page:
        assert list(strict.folder.glob("lsr-demo-*")) == [page.root]
