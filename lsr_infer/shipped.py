"""Names the networks that come with the package; nothing heavy is imported here, because help texts list them."""

import logging
from pathlib import Path

from lsr_infer.errors import UsageError
from lsr_infer.io.store_cache import fetch_folder, local_path
from lsr_infer.io.stores import is_url

__all__ = ["DEFAULT_MODEL", "model_path", "shipped_models"]

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "street"
_FOLDER = Path(__file__).parent / "models"


def shipped_models() -> dict[str, Path]:
    """Return the files by name: for each domain a network before adaptation (`NAME-source`), and one after it."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.onnx"))}


def model_path(model: str | Path | None) -> Path:
    """Return the file that a path, an address or the name of a shipped network names; None takes one and logs it.

    Of an address it is a copy, with an engine's Manifest beside it; see `lsr_infer.io.store_cache.fetch`.

    Raises:
        UsageError: no model is named and none is shipped.
        InputError: what an address names cannot be fetched.
    """
    if is_url(model):
        url = str(model)
        return fetch_folder(f"{url}*") / url.rpartition("/")[2] if url.endswith(".engine") else local_path(url)
    shipped = shipped_models()
    if model is not None:
        path = Path(model)
        is_name = str(model) in shipped and not path.exists()  # a file of that name goes before
        return shipped[str(model)] if is_name else path
    if DEFAULT_MODEL not in shipped:
        raise UsageError("this installation ships no model. Name one, for `lsr-infer` with --model MODEL.onnx.")
    logger.info(
        "no model named: using %s, a shipped network that never saw your camera (docs/model_card.md)", DEFAULT_MODEL
    )
    return shipped[DEFAULT_MODEL]
