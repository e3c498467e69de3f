"""Names the networks that come with the package; nothing heavy is imported here, because help texts list them."""

import logging
from pathlib import Path

from lsr_infer.errors import UsageError

__all__ = ["DEFAULT_MODEL", "model_path", "shipped_models"]

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "street"
_FOLDER = Path(__file__).parent / "models"


def shipped_models() -> dict[str, Path]:
    """Return the files by name: for each domain a network before adaptation (`NAME-source`), and one after it."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.onnx"))}


def model_path(model: str | Path | None) -> Path:
    """Return the file that a path or the name of a shipped network names; None takes one of these and logs it.

    Raises:
        UsageError: no model is named and none is shipped.
    """
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
