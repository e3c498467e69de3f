"""Runs `suggest`: looks at the footage, chooses frames, and writes them with what the network predicts as labels."""

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lsr_infer.errors import UsageError
from lsr_infer.io.files import check_output_folder, refuse_existing, whole_folder
from lsr_infer.io.images import fit_mask, resize_frame
from lsr_infer.io.store_cache import local_path
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.system.progress import with_progress
from lsr_infer.text import csv_cell
from lsr_train.data.classes_file import load_label_space
from lsr_train.data.footage import Footage, FrameOrigin, TargetFrames, open_footage
from lsr_train.data.loading import ignored_pixels
from lsr_train.data.scan import user_cache_folder
from lsr_train.device import choose_device, choose_precision
from lsr_train.evaluation.models import predicted_space, working_size
from lsr_train.evaluation.scores import EvaluationProtocol, NetworkPredictor, in_eval_mode
from lsr_train.evaluation.signals import AGREEMENT_SCALES, SIGNAL_BATCH
from lsr_train.runs.checkpoint import load_model
from lsr_train.runs.folder import resolve_model
from lsr_train.runs.state import other_network
from lsr_train.suggestion.label_folder import Prefilled, write_cvat, write_plain, write_preview
from lsr_train.suggestion.options import SuggestOptions
from lsr_train.suggestion.spread import choose_spread
from lsr_train.suggestion.views import FootageViews, ViewNetworks, disagreement, measure_views, view_logits

__all__ = ["FRAMES_FILE", "suggest"]

logger = logging.getLogger(__name__)

FRAMES_FILE = "frames.csv"
_NOTHING = re.compile("(?!)")


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The networks on their device, their classes, the rows and columns that are fed, and pixels that never count."""

    networks: ViewNetworks
    space: LabelSpace
    size: tuple[int, int]
    ignored: NDArray[np.bool_] | None


def suggest(options: SuggestOptions) -> int:
    """Choose frames and write them.

    Returns:
        0, or 6 where unusable files were left out (`--on_bad skip`).

    Raises:
        UsageError: there is something in the folder already, or classes have no names.
        InputError: network or footage is missing or unusable, or the folder cannot be written.
    """
    out = Path(options.out)
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Choose another --out.")
    refuse_existing(out, overwrite=out.is_dir())
    asked = _open(options)
    footage = open_footage(options.footage(*asked.size), on_bad=options.on_bad, cache=user_cache_folder())
    check_output_folder(out.parent)
    frames = TargetFrames(footage, 0, *asked.size, asked.ignored)
    views = measure_views(asked.networks, frames.batches(SIGNAL_BATCH, what="comparing views"))
    origins = [footage.origin(index) for index in range(len(footage))]
    chosen = choose_spread(
        views.scores, views.features, options.count, near=lambda index: _near(origins, index, options.apart)
    )
    with whole_folder(out, overwrite=True, own=_NOTHING) as folder:
        _write(folder, options, asked, _prefilled(asked, footage, chosen), _table(options, views, origins, chosen))
    _report(options, len(footage), len(chosen))
    return 6 if footage.left_out else 0


def _open(options: SuggestOptions) -> _Asked:
    """Open the network, and the run's other one where there is one."""
    device = choose_device(options.device, options.precision)
    if options.threads:
        torch.set_num_threads(options.threads)
    file = resolve_model(options.model)
    if file.suffix.lower() in (".onnx", ".engine"):
        raise UsageError(f"{file.name} is an exported file, which has no features to compare. Name its checkpoint.")
    network, info = load_model(file, dilations=options.branches)
    other = other_network(file, network)
    wanted = None if options.label_space == "auto" else load_label_space(options.label_space)
    space = predicted_space(str(file), info.label_space, network.spec.num_classes, wanted)
    size = working_size(info, options.height, options.width)
    precision = choose_precision(device, options.precision)
    compared = ["its mirror image", *(f"at scale {scale:g}" for scale in AGREEMENT_SCALES)]
    compared += [] if other is None else ["teacher and student"]
    logger.info(
        "%s on %s, %s, frames at %dx%d; each is compared with %s",
        file, device, precision, size[1], size[0], ", ".join(compared),
    )  # fmt: skip
    networks = ViewNetworks(
        network=network.to(device), other=None if other is None else other.to(device), precision=precision
    )
    ignored = ignored_pixels(options.footage(*size), options.ignore_mask)
    return _Asked(networks=networks, space=space, size=size, ignored=ignored)


def _near(origins: Sequence[FrameOrigin], index: int, apart: float) -> NDArray[np.bool_]:
    """Return which frames [N] are of the same video as one, and less than so many seconds from it."""
    file, seconds = origins[index]
    if seconds is None:
        return np.zeros(len(origins), dtype=bool)
    return np.array([o.file == file and o.seconds is not None and abs(o.seconds - seconds) < apart for o in origins])


def _file_name(rank: int, origin: FrameOrigin) -> str:
    """Return what the files of a chosen frame are called: its rank first, then where it is from."""
    moment = "" if origin.seconds is None else f"_{origin.seconds:.3f}s"
    return f"{rank:03d}_" + re.sub(r"[^\w-]+", "_", f"{origin.file.stem}{moment}")[:80]


def _prefilled(asked: _Asked, footage: Footage, chosen: Sequence[int]) -> Iterator[Prefilled]:
    """Yield chosen frames at their own size with what the network says to them: the mean of the views, mirror included.

    Every pixel that counts gets a class, unsure ones too: to correct a region is quicker than to draw one.
    """
    networks, (height, width) = asked.networks, asked.size
    scales = (1.0, *AGREEMENT_SCALES)
    protocol = EvaluationProtocol(height=height, width=width, scales=scales, flip=True, precision=networks.precision)
    predict = NetworkPredictor(networks.network, protocol)
    device = next(networks.network.parameters()).device
    ranks = {index: rank for rank, index in enumerate(chosen, start=1)}
    for index, frame in with_progress(footage.whole(chosen), "labelling", len(chosen)):
        rows, columns = frame.shape[:2]
        labels = predict(frame, (rows, columns)).byte().cpu().numpy()
        mask = fit_mask(asked.ignored, rows, columns)
        if mask is not None:
            labels[mask] = IGNORE_INDEX
        with in_eval_mode(networks.network):
            fed = torch.from_numpy(np.ascontiguousarray(resize_frame(frame, height, width)))[None].to(device)
            views, _ = view_logits(networks, networks.network.normalize(fed))
            doubt = disagreement(views)[0].double().cpu().numpy()
        name = _file_name(ranks[index], footage.origin(index))
        yield Prefilled(name=name, frame=frame, labels=labels, doubt=doubt)


def _write(folder: Path, options: SuggestOptions, asked: _Asked, frames: Iterable[Prefilled], table: str) -> None:
    """Write everything into a temporary folder."""

    def previewed() -> Iterator[Prefilled]:
        for item in frames:
            write_preview(folder, item, asked.space)
            yield item

    {"folder": write_plain, "cvat": write_cvat}[options.format](folder, previewed(), asked.space)
    (folder / FRAMES_FILE).write_text(table, encoding="utf-8")


def _table(options: SuggestOptions, views: FootageViews, origins: Sequence[FrameOrigin], chosen: Sequence[int]) -> str:
    """Return every frame that was looked at as a row of a CSV file, the chosen ones with rank and name."""
    ranks = {index: rank for rank, index in enumerate(chosen, start=1)}
    root = local_path(options.target)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["frame", "seconds", "score", "disagreement", "rank", "image"])
    for index, (origin, score, found) in enumerate(zip(origins, views.scores, views.disagreement, strict=True)):
        inside = root.is_dir() and origin.file.is_relative_to(root)
        file = origin.file.relative_to(root) if inside else Path(origin.file.name)
        seconds = "" if origin.seconds is None else f"{origin.seconds:.3f}"
        rank = ranks.get(index)
        image = "" if rank is None else f"{_file_name(rank, origin)}.png"
        row = [file.as_posix(), seconds, f"{score:.6f}", f"{found:.6f}", "" if rank is None else rank, image]
        writer.writerow(map(csv_cell, row))
    return text.getvalue()


def _report(options: SuggestOptions, frames: int, chosen: int) -> None:
    """Say what was written, and why there is less than was asked for."""
    if chosen < options.count:
        why = f"there are no more than {frames} frames"
        if chosen < frames:
            why = f"every other of {frames} frames is of a scene that was chosen already (--apart, or nearly equal)"
        logger.warning("%d frames are suggested, not %d: %s", chosen, options.count, why)
    logger.info("%d frames with pre-filled labels are in %s; %s has all scores", chosen, options.out, FRAMES_FILE)
    logger.info("correct the labels (preview/ shows where to look first), then train with --labelled %s", options.out)
