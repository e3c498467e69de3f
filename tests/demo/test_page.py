"""A page that runs, asked as programs and as strangers ask: what it gives, to whom, and what it refuses."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from lsr_infer import Segmenter
from lsr_infer.io.images import read_image
from lsr_infer.web.models import shipped_models
from lsr_infer.web.passwords import hash_password
from tests.demo.conftest import REPOSITORY, Page, running_page
from tests.processes import running, wait_until

pytest.importorskip("gradio", reason="the extra demo is not installed")

CALLED = {"data": [], "event_data": None, "session_hash": "abc"}


def client_of(page: Page, **options: Any) -> Any:
    from gradio_client import Client

    return Client(page.address, verbose=False, **options)


def sent(page: Page, file: Path, name: str | None = None, cookie: str = "") -> tuple[int, dict[str, Any]]:
    """Upload a file as the page's own element does."""
    headers = {"x-filename": name or file.name, "cookie": cookie, "content-type": "application/octet-stream"}
    answer = page.ask("/lsr/uploads", file.read_bytes(), headers)
    return answer.status, json.loads(answer.body)


def handled(file: Path) -> Any:
    from gradio_client import handle_file

    return handle_file(file)


def refused(page: Page, file: Path, api_name: str) -> str:
    """Return the sentence with which a file is refused."""
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as caught:
        client_of(page).predict(handled(file), api_name=api_name)
    return str(caught.value)


def test_three_lines_of_a_program_give_what_the_segmenter_gives(page: Page, street: Path) -> None:
    before = page.files()
    result = client_of(page).predict(handled(street), api_name="/segment_image")
    (layer,) = result["layers"]
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(layer["mask_png"]), np.uint8), cv2.IMREAD_UNCHANGED)
    segmenter = Segmenter(shipped_models()[1])
    expected = segmenter(read_image(street))
    palette = segmenter.label_space.palette()[:, ::-1]
    assert np.array_equal(mask, palette[expected.classes])
    assert layer["shares"] == pytest.approx(expected.shares(), abs=1e-6)
    assert (result["width"], result["height"]) == (512, 256)
    assert page.files() <= before


def test_two_models_by_name_agree_as_they_do(page: Page, street: Path) -> None:
    client = client_of(page)
    keys = [model["key"] for model in client.predict(api_name="/models")]
    assert keys == ["toytown_source.onnx", "toytown_adapted.onnx"]
    result = client.predict(handled(street), model=keys[1], before=keys[0], api_name="/segment_image")
    classes = [Segmenter(path)(read_image(street)).classes for path in shipped_models()]
    assert result["agreement"] == pytest.approx(np.mean(classes[0] == classes[1]), abs=1e-6)


def test_a_video_comes_whole_and_to_its_owner_alone(page: Page, clip_of: Callable[[int], Path]) -> None:
    job = client_of(page).submit(handled(clip_of(30)), before="toytown_source.onnx", api_name="/segment_video")
    *progress, done = list(job)
    assert done["state"] == "done"
    assert done["frames"] == 30
    assert all(one["state"] in ("waiting", "busy") for one in progress)
    addresses = [done["video"], done["shares"], *[one["url"] for one in done["downloads"]]]
    for address in addresses:
        assert page.ask(address).status == 404
        assert page.ask(address, headers={"x-session-key": "guess"}).status == 404
        assert page.ask(address, headers={"cookie": page.visit()}).status == 404
    key = {"x-session-key": done["key"]}
    answers = {address.rsplit("/", 1)[1]: page.ask(address, headers=key) for address in addresses}
    assert all(answer.status == 200 for answer in answers.values())
    with av.open(io.BytesIO(answers["video.mp4"].body)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 30
    assert frames[0].width == 2 * done["width"] + done["gap"]
    assert answers["video.mp4"].body.find(b"moov") < answers["video.mp4"].body.find(b"mdat")
    names = zipfile.ZipFile(io.BytesIO(answers["masks.zip"].body)).namelist()
    assert names == [f"{number:06d}.png" for number in range(30)]
    shares = json.loads(answers["shares.json"].body)
    assert len(shares["times"]) == 30
    assert [layer["title"] for layer in shares["layers"]] == done["titles"]
    assert np.allclose(np.sum(shares["layers"][1]["shares"], axis=1), 1, atol=1e-3)
    rows = answers["shares.csv"].body.decode().splitlines()
    assert len(rows) == 31
    assert len(rows[0].split(",")) == 2 + 2 * 19
    part = page.ask(done["video"], headers={**key, "range": "bytes=10-19"})
    assert (part.status, len(part.body)) == (206, 10)


def test_a_video_can_be_watched_stopped_and_read_by_its_owner_alone(page: Page, clip_of: Callable[[int], Path]) -> None:
    job = client_of(page).submit(handled(clip_of(150)), api_name="/segment_video")
    document = next(one for one in job if one.get("live"))  # it is computed still
    key, stranger = {"x-session-key": document["key"]}, {"cookie": page.visit()}
    for headers in ({}, stranger, {"x-session-key": "guess"}):
        assert page.ask(document["live"], headers=headers).status == 404
        assert page.ask(document["cancel"], b"", headers, "POST").status in (404, 422)
    watched = page.ask(document["live"], headers=key)  # goes on until the last frame is written
    assert watched.status == 200
    with av.open(io.BytesIO(watched.body)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 150
    assert job.result()["state"] == "done"


def test_programs_of_one_address_cannot_fill_the_queue(tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    from gradio_client.exceptions import AppError

    with running_page(tmp_path, "--queue", "4") as page:
        client = client_of(page)
        jobs = [client.submit(handled(clip_of(60)), api_name="/segment_video") for _ in range(3)]
        refused = []
        for job in jobs[::-1]:
            try:
                job.result()
            except AppError as error:
                refused.append(str(error))
        assert refused == ["You have 2 jobs under way already. Wait for one of them, or cancel it."]


def test_one_visitors_upload_is_nobody_elses(page: Page, street: Path) -> None:
    ann, bob = page.visit(), page.visit()
    assert ann != bob
    status, upload = sent(page, street, cookie=ann)
    assert status == 201
    assert upload["name"] == street.name
    (path,) = [file for file in page.files() if upload["upload"] in str(file)]
    for cookie in ("", ann, bob):
        assert page.ask(f"/gradio_api/file={path}", headers={"cookie": cookie}).status == 404
    assert page.ask(f"/lsr/results/{upload['upload']}/{street.name}", headers={"cookie": bob}).status == 404


def test_without_a_visit_nothing_is_taken(page: Page, street: Path) -> None:
    for cookie in ("", "lsr_session_1=guess"):
        status, answer = sent(page, street, cookie=cookie)
        assert status == 422
        assert answer["error"] == "This page is no longer known to the server. Load it again."


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/stream/x/y/1/playlist.m3u8",
        "/gradio_api/vibe-code",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/monitoring",
        "/openapi.json",
        "/docs",
        "/lsr/static/../service.py",
        "/lsr/static/..%2f..%2fpasswords.py",
        "/lsr/static/%2e%2e/guard.py",
        "/lsr/examples/..%2f..%2ftoytown_adapted.onnx",
        "/lsr/examples/nothing",
        "/lsr/results/x/..%2f..%2flock",
        "/lsr/jobs/x/video.mp4",
    ],
)
def test_what_is_not_the_pages_is_not_there(page: Page, path: str) -> None:
    answer = page.ask(path, headers={"cookie": page.visit()})
    assert answer.status == 404
    assert b"root:" not in answer.body


@pytest.mark.parametrize("named", ["/etc/passwd", "http://example.org/x.jpg", "https://127.0.0.1/x", 7, "a\0b"])
def test_a_call_names_no_file_but_its_own(page: Page, named: object) -> None:
    file = {"path": named, "meta": {"_type": "gradio.FileData"}}
    for value in (file, [file], {"deep": [file]}):
        body = json.dumps({"data": [value, "", ""]}).encode()
        answer = page.ask("/gradio_api/call/segment_image", body, {"content-type": "application/json"})
        assert answer.status == 400
        assert b"Send the file itself" in answer.body


def test_another_page_cannot_use_this_one(page: Page) -> None:
    body = json.dumps(CALLED).encode()
    headers = {"content-type": "application/json", "origin": "http://evil.example"}
    assert page.ask("/gradio_api/queue/join", body, headers).status == 403
    assert page.ask("/", headers={"host": "evil.example"}).status == 400  # a name that leads here (DNS rebinding)


def test_every_answer_says_that_nothing_is_fetched_elsewhere(page: Page) -> None:
    for path in ("/", "/lsr/health", "/lsr/static/main.js", "/nothing"):
        headers = page.ask(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    cookie = page.ask("/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_too_large_an_upload_is_refused_by_either_way(page: Page, tmp_path: Path) -> None:
    before = page.files()
    large = tmp_path / "street.mp4"
    large.write_bytes(b"x" * 8_000_001)
    status, answer = sent(page, large, cookie=page.visit())
    assert status == 413
    assert answer["error"].startswith("street.mp4 has 8.0 MB; at most 8.0 MB are taken.")
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + b"x" * 8_100_000
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert page.ask("/gradio_api/upload", form + b"\r\n--b--\r\n", headers).status == 413
    assert page.files() <= before


def test_a_body_without_a_length_is_cut_off(page: Page) -> None:
    """Chunked: the size is known only when it is there."""
    before = page.files()
    host, port = page.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /lsr/uploads HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {page.visit()}\r\n"
        connection.sendall(f"{head}X-Filename: a.mp4\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        try:
            for _ in range(12):
                connection.sendall(chunk)
            connection.sendall(b"0\r\n\r\n")
            answer = connection.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert not answer or (answer.split()[1] == b"413" and b"8.0 MB are taken" in answer)
    assert page.files() <= before


def test_pictures_beyond_the_limits(page: Page, tmp_path: Path) -> None:
    before = page.files()
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(cv2.imencode(".png", np.zeros((3001, 3000), np.uint8))[1].tobytes())
    assert "has 3000 x 3001 pixels; at most 9 million" in refused(page, bomb, "/segment_image")
    moving = tmp_path / "moving.gif"
    moving.write_bytes(gif(10_000))
    assert "holds 10000 pictures" in refused(page, moving, "/segment_image")
    assert "has 10000 frames; at most 500" in refused(page, moving, "/segment_video")
    wrong = tmp_path / "street.jpg"
    wrong.write_bytes(b"<svg onload='alert(1)'/>")
    assert "is no image" in refused(page, wrong, "/segment_image")
    assert page.files() <= before


def test_videos_beyond_the_limits(page: Page, clip_of: Callable[[int], Path]) -> None:
    before = page.files()
    assert "lasts 31 s; at most 30 s" in refused(page, clip_of(310), "/segment_video")
    assert page.files() <= before


def gif(frames: int) -> bytes:
    """Return an animation of one pixel."""
    head = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
    frame = b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00"
    return head + frames * frame + b";"


def test_every_damaged_or_hostile_file_gets_a_sentence(page: Page, shared: Callable[[str], Path]) -> None:
    """All of them, as pictures or as videos by what they are called; some are odd but whole, and are segmented."""
    from gradio_client.exceptions import AppError

    folder, client, before = shared("data/badmedia"), client_of(page), page.files()
    moving = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".gif", ".h264", ".ts"}
    sentences, whole, taken = {}, set(), 0
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".md", ".tsv")]
    assert len(files) > 100
    for path in files:
        try:
            api_name = "/segment_video" if path.suffix.lower() in moving else "/segment_image"
            answer = client.predict(handled(path), api_name=api_name)
            taken += 1
            whole |= {answer["id"]} if "id" in answer else set()
        except AppError as error:
            sentences[path] = str(error)
    assert taken > 50
    assert len(sentences) > 50
    # What was refused left nothing; of a video that was segmented the program may still fetch the results.
    results = {path.parent.name for path in page.files() - before if path.parent.parent.name == "results"}
    assert results <= whole
    assert not [path for path in page.files() - before if path.name in {bad.name for bad in sentences}]
    for path, sentence in sentences.items():
        assert sentence.endswith("."), (path, sentence)
        assert "server" not in sentence, (path, sentence)  # neither a crash nor a fault of our own
        assert str(page.folder) not in sentence, (path, sentence)
    assert page.ask("/lsr/health").status == 200


def test_a_camera_frame_comes_back_as_a_mask(page: Page, street: Path) -> None:
    cookie = {"cookie": page.visit()}
    answer = page.ask("/lsr/live?model=toytown_adapted.onnx", street.read_bytes(), cookie)
    assert answer.status == 200
    assert float(answer.headers["x-milliseconds"]) > 0
    mask = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, Segmenter(shipped_models()[1])(read_image(street)).classes)
    assert page.ask("/lsr/live?model=toytown_adapted.onnx", b"no picture", cookie).status == 422
    assert page.ask("/lsr/live?model=../x.onnx", street.read_bytes(), cookie).status == 422
    assert page.ask("/lsr/live?model=toytown_adapted.onnx", street.read_bytes()).status == 422


def test_examples_are_the_packages_frames(page: Page, street: Path) -> None:
    answer = page.ask(f"/lsr/examples/{street.stem}")
    assert answer.body == street.read_bytes()


def test_a_busy_port_is_said_at_once(page: Page) -> None:
    port = page.address.rsplit(":", 1)[1]
    command = [sys.executable, "demo/app.py", "--port", port]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"error: port {port} is taken by another program. Choose one with --port.\n"


def test_a_public_address_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    """No network here, so this is what happens; with one, Gradio's servers answer."""
    command = [sys.executable, "demo/app.py", "--port", "0", "--share", "--models", str(tmp_path)]
    environment = os.environ | {"GRADIO_SHARE_SERVER_ADDRESS": "127.0.0.1:9"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 3
    assert f"{tmp_path} holds no model (.onnx, .engine); the shipped networks are offered" in done.stderr
    assert "error: --share: no public address could be opened" in done.stderr


def test_another_host_is_said_and_a_password_is_asked_for(tmp_path: Path, street: Path) -> None:
    file = tmp_path / "hash"
    file.write_text(hash_password("right"), encoding="utf-8")
    command = [sys.executable, "demo/app.py", "--host", "999.1.1.1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "cannot listen at 999.1.1.1" in done.stderr
    (tmp_path / "tmp").mkdir()
    with running_page(tmp_path / "tmp", "--host", "0.0.0.0", "--auth", f"ann:{file}") as page:

        def authorization(text: str) -> dict[str, str]:
            return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}

        for wrong in ({}, authorization("ann:wrong"), authorization("bob:right"), {"authorization": "Basic ???"}):
            answer = page.ask("/", headers=wrong)
            assert answer.status == 401
            assert "Basic" in answer.headers["www-authenticate"]
        assert page.ask("/", headers=authorization("ann:right")).status == 200
        assert page.ask("/lsr/health").status == 200  # a container's health check knows no password
        result = client_of(page, headers=authorization("ann:right")).predict(handled(street), api_name="/segment_image")
        assert result["width"] == 512


def test_what_a_killed_server_left_goes_with_the_next(tmp_path: Path, street: Path) -> None:
    def killed() -> None:
        with running_page(tmp_path) as page:
            sent(page, street, cookie=page.visit())
            page.process.kill()
            page.process.wait()

    with pytest.raises(AssertionError, match="left behind"):
        killed()
    assert [path.name for path in tmp_path.rglob("*.jpg")] == [street.name]
    with running_page(tmp_path):
        assert len(list(tmp_path.glob("lsr-demo-*"))) == 1
        assert not list(tmp_path.rglob("*.jpg"))


def test_no_process_outlives_a_killed_server(tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    def killed() -> None:
        with running_page(tmp_path) as page:
            job = client_of(page).submit(handled(clip_of(299)), api_name="/segment_video")
            assert any(document.get("frames") for document in job)
            workers = {
                int(pid)
                for task in Path(f"/proc/{page.process.pid}/task").iterdir()
                for pid in (task / "children").read_text(encoding="ascii").split()
            }
            page.process.kill()
            page.process.wait()
            assert len(workers) >= 2  # of pictures and of clips
            wait_until(lambda: not any(running(pid) for pid in workers))

    with pytest.raises(AssertionError, match="left behind"):
        killed()


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15, 0.4])
def test_ctrl_c_twice_is_as_good_as_once(tmp_path: Path, clip_of: Callable[[int], Path], seconds: float) -> None:
    with running_page(tmp_path) as page:
        job = client_of(page).submit(handled(clip_of(299)), api_name="/segment_video")
        assert any(document.get("frames") for document in job)
        for _ in range(2):
            os.killpg(page.process.pid, signal.SIGINT)
            time.sleep(seconds)
        assert page.process.wait(60) == 130  # what was said until then is looked at by running_page


def test_ctrl_c_ends_a_program_s_clip_without_a_word(tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    with running_page(tmp_path) as page:
        job = client_of(page).submit(handled(clip_of(299)), api_name="/segment_video")
        assert any(document.get("frames") for document in job)
    assert page.process.returncode == 130  # what was said until then is looked at by running_page
