"""Puts the options of commands that score into messages that name those of a training.

What finds and reads data is the same for both, and its messages name `--data.source.ids`; `evaluate` has `--ids`.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from lsr_infer.errors import LsrError
from lsr_train.config.data import DataConfig, SourceConfig, TargetConfig

__all__ = ["own_names", "with_own_names"]


def _field(section: str, kind: type) -> str:
    """Return the pattern of a section's fields by their dotted names."""
    return rf"\b{re.escape(section)}\.({'|'.join(item.name for item in fields(kind))})\b"


_OWN = (
    (re.compile(r" \(or --(source|target)\)"), ""),
    (re.compile(r"--data\.source\.root\b|--source\b"), "--data"),
    (re.compile(r"--data\.target\.root\b"), "--target"),
    (re.compile(_field("data.target", TargetConfig)), r"target_\1"),
    (re.compile(_field("data.source", SourceConfig)), r"\1"),
    (re.compile(_field("data", DataConfig)), r"\1"),
    (re.compile(r"--network\.dilations\b"), "--dilations"),
)
"""What a message names, and what it becomes."""


def own_names(message: str) -> str:
    """Return a message with the options of a command that scores in place of those of a training."""
    for pattern, own in _OWN:
        message = pattern.sub(own, message)
    return message


class _Named(logging.Filter):
    """Rewrites what is logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = own_names(record.getMessage()), None
        return True


@contextmanager
def with_own_names() -> Iterator[None]:
    """Name the options of a command that scores, in errors and in what is logged."""
    handlers, named = list(logging.getLogger().handlers), _Named()
    for handler in handlers:
        handler.addFilter(named)
    try:
        yield
    except LsrError as error:
        error.args = (own_names(str(error)),)
        raise
    finally:
        for handler in handlers:
            handler.removeFilter(named)
