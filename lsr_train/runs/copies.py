"""Copies the finished checkpoints and tables of a run folder to a store, and fetches them where the folder is lost.

A copy can be resumed at any instant: its pointers are written last, and lead to checkpoints that are whole. A run is
known by how it was first started, so that none replaces the copy of another.
"""

import json
import logging
import shutil
from pathlib import Path

from lsr_infer.errors import UsageError
from lsr_infer.io.addresses import without_secrets
from lsr_infer.io.files import writing
from lsr_infer.io.store_cache import fetch_folder, release
from lsr_infer.io.stores import listing, pieces, put_folder, put_whole, remove, status, stored
from lsr_train.runs.folder import ENVIRONMENT_FILE, RunFolder

__all__ = ["check_copy", "copy_run", "fetch_run"]

logger = logging.getLogger(__name__)


def check_copy(run: RunFolder, url: str) -> bool:
    """Return whether an address holds a copy of this run; false where there is no checkpoint.

    Raises:
        UsageError: it holds the copy of another run.
        InputError: it cannot be read.
    """
    top = url.rstrip("/")
    if not stored(f"{top}/checkpoints/last"):
        return False
    if _first_start(f"{top}/{ENVIRONMENT_FILE}") != run.environments()[:1]:
        raise UsageError(
            f"{without_secrets(top)}: holds the copy of another run than {run.path}. Choose another --copy_to, or "
            "fetch that run by --or_resume with an --out where nothing is."
        )
    return True


def _first_start(url: str) -> list[object]:
    """Return the first entry of a stored environment.json in a list; empty where there is none."""
    if not stored(url) or (found := status(url)) is None:
        return []
    try:
        return list(json.loads(b"".join(pieces(found))))[:1]
    except (ValueError, TypeError):
        return []


def copy_run(run: RunFolder, url: str) -> None:
    """Send what a store lacks of a run, and remove checkpoints there that the run has no more; raises as `check_copy`.

    What a run left there that never had a whole checkpoint is replaced.
    """
    top, is_copy = url.rstrip("/"), check_copy(run, url)
    found_there = {found.url.removeprefix(f"{top}/") for found in listing(top)} if stored(top) else set()
    there = found_there if is_copy else set()
    names = {step: f"checkpoints/step-{step}" for step in run.steps()}
    for step, name in names.items():
        files = {f"{name}/{path.name}" for path in run.checkpoint(step).iterdir()}
        if not files <= there:
            put_folder(run.checkpoint(step), f"{top}/{name}")
    pointers = (path for path in (run.path / "checkpoints").iterdir() if path.is_file())
    for path in (*sorted(run.path.iterdir()), *sorted(pointers)):
        if path.is_file() and not path.name.startswith("."):
            put_whole(path, f"{top}/{path.relative_to(run.path).as_posix()}")
    for name in sorted(found_there):
        if name.startswith("checkpoints/step-") and name.rpartition("/")[0] not in names.values():
            remove(f"{top}/{name}")


def fetch_run(url: str, path: Path) -> None:
    """Make a run folder out of its copy in a store, also in an empty folder; nothing where there is a run, or no copy.

    Raises:
        InputError: the copy cannot be read, or the folder not written.
        UsageError: something else is in the folder.
    """
    top = url.rstrip("/")
    if (path / "config.yaml").is_file() or not stored(f"{top}/checkpoints/last"):
        return
    temporary = path / ".fetched"  # within it: the folder may be where a disk is mounted
    if not temporary.is_dir():
        RunFolder.check_free(path)
    copy = fetch_folder(top)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        shutil.copytree(copy, temporary, dirs_exist_ok=True)
        for item in sorted(temporary.iterdir(), key=lambda item: item.name == "config.yaml"):  # which makes it a run
            shutil.rmtree(path / item.name, ignore_errors=True)  # of a fetch that was killed
            item.replace(path / item.name)
        temporary.rmdir()
    release(copy)
    logger.info("%s: fetched from %s", path, without_secrets(top))
