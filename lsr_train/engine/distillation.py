"""A finished network as the teacher of another: found, and verified by its hash.

It is no part of a checkpoint: the configuration names its file and the file's hash. Nothing here knows a loss.
"""

from dataclasses import replace
from pathlib import Path

import torch

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_train.config.run import Config
from lsr_train.runs.checkpoint import TeacherFacts, load_model, model_hash
from lsr_train.runs.folder import resolve_model
from lsr_train.selftraining import FrozenTeacher

__all__ = ["load_teacher", "with_teacher_hash"]


def with_teacher_hash(config: Config) -> Config:
    """Return the configuration with the teacher's very file and hash, so that a resumed run has the same teacher.

    Raises:
        InputError: there is no such file, or it is not the one whose hash the configuration holds.
    """
    if not config.distill.teacher:
        return config
    path = resolve_model(Path(config.distill.teacher))
    found, wanted = model_hash(path), config.distill.sha256
    if wanted and found != wanted:
        raise InputError(
            f"{path}: the teacher's SHA-256 begins {found[:12]}, and the run was configured with {wanted[:12]}. Put "
            "the file back, or start a new run with this teacher."
        )
    return replace(config, distill=replace(config.distill, teacher=str(path), sha256=found))


def load_teacher(config: Config, space: LabelSpace, device: torch.device) -> tuple[FrozenTeacher, TeacherFacts] | None:
    """Read the teacher that a configuration names, and where it is from; None where it names none.

    Args:
        config: with the teacher's file (see `with_teacher_hash`).
        space: the student's classes.
        device: where it shall run.

    Raises:
        InputError: the file is damaged, or has other classes than the student.
        UsageError: it shall run at its training size and does not say it.
    """
    settings = config.distill
    if not settings.teacher:
        return None
    path = Path(settings.teacher)
    network, info = load_model(path, device)
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch documents it
    if info.label_space is None and network.spec.num_classes != space.num_classes:
        raise InputError(
            f"{path}: the teacher has {network.spec.num_classes} classes, the student those of {space.name}, "
            f"{space.num_classes}. Set --label_space to the teacher's."
        )
    if info.label_space is not None and info.label_space.names != space.names:
        raise InputError(
            f"{path}: the teacher has the classes of {info.label_space.name}, the student those of {space.name}. Set "
            "--label_space to the teacher's."
        )
    scale = (1.0, 1.0)
    if settings.teacher_size == "own":
        if not (info.height and info.width):
            raise UsageError(f"{path}: does not say at which size it was trained. Set --distill.teacher_size student.")
        scale = (info.height / config.data.target.height, info.width / config.data.target.width)
    facts = TeacherFacts(sha256=settings.sha256, method=info.method, step=info.step, scores=info.scores)
    return FrozenTeacher(network, scale), facts
