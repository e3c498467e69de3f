"""Packs what a machine with a GPU and no network lacks, in parts of at most 60 MiB, and installs it there.

    python -m tests.gpu_check.bundle pack gpu-bundle [--python 3.12] [--extras train,export] [--torch] [--frames FOLDER]
    python -m tests.gpu_check.bundle install gpu-bundle FOLDER

The bundle holds the wheels of what the project depends on and of what its GPU tests need, and frames of the size of
GTA5's. It leaves torch out, whose CUDA build has to fit the driver and weighs gigabytes: the GPU machine's own Python
brings it, and with it the CUDA and cuDNN libraries that onnxruntime-gpu loads. `--torch` packs it all the same.
`install` runs on the standard library alone.
"""

import argparse
import hashlib
import os
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
PART_BYTES = 60 * 2**20
DIGESTS = "SHA256SUMS"
"""The list of the parts, which `sha256sum --check` reads too."""
EXTRAS = "train,export"
GLIBC = range(5, 40)
"""Minor versions of the C library 2 that a wheel may name: pip takes the newest wheel for any of them."""
FRAMES = {"game": (1280, 720), "camera": (1024, 512)}
"""Toytown's domains at the sizes of GTA5 and Cityscapes in the paper, (width, height)."""


# -- parts ----------------------------------------------------------------------------------------------------------


def split(file: Path, folder: Path, most: int = PART_BYTES) -> list[Path]:
    """Cut a file into parts of at most so many bytes in a new folder, with the list of their digests beside them."""
    folder.mkdir(parents=True)
    parts = []
    with file.open("rb") as whole:
        while piece := whole.read(most):
            parts.append(folder / f"part-{len(parts):03}")
            parts[-1].write_bytes(piece)
    lines = [f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n" for part in parts]
    (folder / DIGESTS).write_text("".join(lines), encoding="ascii")
    return parts


def join(folder: Path, file: Path) -> None:
    """Put the parts of a folder together again; raises `ValueError` where one is missing or differs from the list."""
    if not (folder / DIGESTS).is_file():
        raise ValueError(f"{folder}: there is no {DIGESTS} in it. Copy the whole folder that `make gpu-bundle` made.")
    with file.open("wb") as whole:
        for line in (folder / DIGESTS).read_text(encoding="ascii").splitlines():
            digest, _, name = line.partition("  ")
            part = folder / name
            if not part.is_file():
                raise ValueError(f"{part}: it is missing. Copy it again.")
            piece = part.read_bytes()
            if hashlib.sha256(piece).hexdigest() != digest:
                raise ValueError(f"{part}: its digest is not the one in {DIGESTS}. Copy it again.")
            whole.write(piece)


# -- packing --------------------------------------------------------------------------------------------------------


def requirements(extras: Sequence[str]) -> list[str]:
    """Return what the project needs with these extras, what builds it, and what its GPU tests and TensorRT need."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    optional = project["optional-dependencies"]
    tools = [item for item in optional["dev"] if item.startswith(("pytest>", "hypothesis>"))]
    beside_tensorrt = [item for item in optional["trt"] if not item.startswith("tensorrt>")]
    of_project = [*project["dependencies"], *(item for extra in extras for item in optional[extra])]
    return [*of_project, *document["build-system"]["requires"], *tools, *beside_tensorrt]


def stand_in(folder: Path, name: str, version: str) -> Path:
    """Write an empty wheel under the name of a package, so that pip resolves the others without it."""
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return wheel


def download(needed: Sequence[str], wheels: Path, python: str, *, torch: bool) -> None:
    """Fetch wheels for Linux on x86-64 and a version of Python, and all that they depend on; torch only if told."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC] + ["manylinux2014_x86_64"]
    words = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--dest", str(wheels)]
    words += [word for platform in platforms for word in ("--platform", platform)]
    with TemporaryDirectory() as temporary:
        if not torch:
            (pinned,) = (ROOT / "constraints/cpu.txt").read_text(encoding="utf-8").splitlines()[-1:]
            wheel = stand_in(Path(temporary), *pinned.split("=="))
            constraints = Path(temporary) / "constraints.txt"
            constraints.write_text(f"torch @ {wheel.as_uri()}\n", encoding="utf-8")
            words += ["--constraint", str(constraints)]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *words, *needed], check=True)
        if not torch:
            (wheels / wheel.name).unlink()


def render(frames: Path, count: int = 8, part: int = 1) -> None:
    """Render labelled frames of both domains at the sizes of a training on GTA5, or at a part of them."""
    for domain, (width, height) in FRAMES.items():
        size = ["--width", str(width // part), "--height", str(height // part)]
        size += ["--frames", str(count), "--seed", "910000"]
        command = [sys.executable, "-m", "lsr_train.toytown", "frames", "--domain", domain, *size, "--jpeg"]
        subprocess.run([*command, "--output", str(frames / domain)], cwd=ROOT, check=True)


def pack(folder: Path, options: argparse.Namespace) -> None:
    """Gather wheels and frames, and write them as parts."""
    if folder.exists():
        raise ValueError(f"{folder} is there already. Remove it, or choose another with BUNDLE=…")
    extras = options.extras.split(",")
    with TemporaryDirectory(dir=folder.absolute().parent) as temporary:
        content = Path(temporary) / "content"
        content.mkdir()
        needed = requirements(extras)
        download(needed, content / "wheels", options.python, torch=options.torch)
        listed = [item for item in needed if not item.startswith("torch")]
        (content / "requirements.txt").write_text("\n".join((f"-e .[{','.join(extras)}]", *listed)) + "\n", "utf-8")
        if options.frames is None:
            render(content / "frames")
        else:
            shutil.copytree(options.frames, content / "frames")
        archive = Path(temporary) / "bundle.tar"
        with tarfile.open(archive, "w") as file:
            file.add(content, arcname=".")
        parts = split(archive, folder)
        size = archive.stat().st_size / 2**20
    print(f"{folder}: {len(parts)} parts, {size:.0f} MiB. Copy them and this checkout, and run `make gpu-check` there.")


# -- installing -----------------------------------------------------------------------------------------------------


def install(bundle: Path, folder: Path) -> None:
    """Join a bundle in a folder and install its wheels in an environment above this Python's, which has torch.

    The environment is `folder/environment`, the bundle's content `folder/content`.
    """
    content, environment = folder / "content", folder / "environment"
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    with TemporaryDirectory(dir=folder) as temporary:
        archive = Path(temporary) / "bundle.tar"
        join(bundle, archive)
        with tarfile.open(archive) as file:
            file.extractall(content, filter="data")
    # `system_site_packages` would show the packages of the Python that this one was made from, where it is itself one
    # of an environment
    venv.create(environment, clear=True, symlinks=True, with_pip=False)
    python = environment / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    lines = [
        f"import site; site.addsitedir({place!r})\n" for place in (*site.getsitepackages(), site.getusersitepackages())
    ]
    (packages / "below.pth").write_text("".join(lines), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-cache-dir"]
    pip += ["--find-links", str(content / "wheels"), "--no-build-isolation", "--disable-pip-version-check"]
    listed = (content / "requirements.txt").read_text(encoding="utf-8").splitlines()
    offline = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")} | {
        "PIP_CONFIG_FILE": os.devnull
    }
    builders = [item for item in listed if item.startswith("setuptools")]
    for some in (builders, ["--requirement", str(content / "requirements.txt")]):
        if some:
            subprocess.run([*pip, *some], cwd=ROOT, check=True, env=offline)


def main() -> None:
    """Pack or install."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check.bundle", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pack")
    one.add_argument("bundle", type=Path, help="a folder that is made")
    one.add_argument("--python", default="3.12", metavar="X.Y", help="version of the GPU machine's Python (3.12)")
    one.add_argument("--extras", default=EXTRAS, help=f"of the project, with commas ({EXTRAS})")
    one.add_argument("--torch", action="store_true", help="pack torch and its CUDA libraries too, some 3 GB")
    one.add_argument("--frames", type=Path, help="game/ and camera/ of your own, each with images/, game/ with labels/")
    one = commands.add_parser("install")
    one.add_argument("bundle", type=Path)
    one.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "pack":
            pack(options.bundle, options)
        else:
            install(options.bundle, options.folder)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
