"""Copies the finished checkpoints and tables of a run folder to a store, and fetches them where the folder is lost.

A copy can be resumed at any instant: its pointers are written last, and lead to checkpoints that are whole.
"""

import logging
import shutil
from pathlib import Path

from lsr_infer.errors import InputError
from lsr_infer.io.addresses import without_secrets
from lsr_infer.io.files import writing
from lsr_infer.io.store_cache import fetch_folder, release
from lsr_infer.io.stores import listing, put_folder, put_whole, remove, stored
from lsr_train.runs.folder import RunFolder

__all__ = ["copy_run", "fetch_run"]

logger = logging.getLogger(__name__)


def copy_run(run: RunFolder, url: str) -> None:
    """Send what a store lacks of a run, and remove checkpoints there that the run has no more; raises `InputError`."""
    top = url.rstrip("/")
    there = {found.url.removeprefix(f"{top}/") for found in listing(top)} if stored(top) else set()
    names = {step: f"checkpoints/step-{step}" for step in run.steps()}
    for step, name in names.items():
        files = {f"{name}/{path.name}" for path in run.checkpoint(step).iterdir()}
        if not files <= there:
            put_folder(run.checkpoint(step), f"{top}/{name}")
    pointers = (path for path in (run.path / "checkpoints").iterdir() if path.is_file())
    for path in (*sorted(run.path.iterdir()), *sorted(pointers)):
        if path.is_file() and not path.name.startswith("."):
            put_whole(path, f"{top}/{path.relative_to(run.path).as_posix()}")
    for name in sorted(there):
        if name.startswith("checkpoints/step-") and name.rpartition("/")[0] not in names.values():
            remove(f"{top}/{name}")


def fetch_run(url: str, path: Path) -> None:
    """Make a run folder out of its copy in a store; nothing where there is none.

    Raises:
        InputError: the copy cannot be read, or the folder not written.
    """
    top = url.rstrip("/")
    if not stored(f"{top}/checkpoints/last"):
        return
    copy = fetch_folder(top)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with writing(path):
            shutil.rmtree(temporary, ignore_errors=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(copy, temporary)
            temporary.rename(path)
    except InputError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    release(copy)
    logger.info("%s: fetched from %s", path, without_secrets(top))
