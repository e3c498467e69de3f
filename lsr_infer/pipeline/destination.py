"""Defines where results go: into a folder, or to a store, which gets each source's results once they are whole."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lsr_infer.errors import UsageError
from lsr_infer.io.addresses import without_secrets
from lsr_infer.io.files import refuse_existing
from lsr_infer.io.stores import is_store, is_url, put_folder, put_whole, stored
from lsr_infer.pipeline.outputs import FRAME_FILES, Outputs

__all__ = ["Destination", "open_destination"]


@dataclass(frozen=True)
class Destination:
    """A folder in which results are written, None where they are only shown, and the store to which they go on."""

    folder: Path | None
    url: str | None = None

    def place(self, path: Path) -> Path | str:
        """Return where a result is found in the end: its path, or its address in the store."""
        if self.url is None or self.folder is None:
            return path
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"

    def refuse_existing(self, path: Path, *, overwrite: bool) -> None:
        """Raise `UsageError` unless a result may take its place; see `lsr_infer.io.files.refuse_existing`."""
        place = self.place(path)
        if isinstance(place, Path):
            refuse_existing(place, overwrite=overwrite, own=FRAME_FILES)
        elif not overwrite and stored(place):
            raise UsageError(f"{place} already exists. Choose another output, or pass --overwrite.")

    def deliver(self, outputs: Outputs) -> Mapping[str, Path | str]:
        """Send a source's results on, and return where they are, by kind; raises `InputError`."""
        if self.url is None:
            return outputs
        for path in outputs.values():
            if path.is_dir():
                put_folder(path, str(self.place(path)), own=FRAME_FILES)
                shutil.rmtree(path)
            else:
                put_whole(path, str(self.place(path)))
                path.unlink()
        return {kind: self.place(path) for kind, path in outputs.items()}

    def __str__(self) -> str:
        """Name it in messages."""
        return self.url or str(self.folder)


@contextmanager
def open_destination(output: Path | str | None) -> Iterator[Destination]:
    """Yield where results go that were asked for in a folder or at the address of a store.

    Raises:
        UsageError: it is an http address, which is only read.
    """
    if not isinstance(output, str):
        yield Destination(output)
        return
    if is_url(output) and not is_store(output):
        raise UsageError(
            f"{without_secrets(output)}: http servers are only read. Set --output to a folder, or s3://, gs:// or az://."
        )
    with TemporaryDirectory(prefix="lsr_results_") as folder:
        yield Destination(Path(folder), output.rstrip("/"))
