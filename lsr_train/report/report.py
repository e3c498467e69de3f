"""Reads runs and tables of `compare`, and writes the page that shows them side by side."""

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from lsr_infer.errors import InputError, LsrError
from lsr_infer.io.files import check_output_folder, refuse_existing, write_text
from lsr_train.analysis.drawings import styled
from lsr_train.analysis.options import ReportOptions
from lsr_train.comparison.document import TABLE_FORMAT, comparison_table, table_networks
from lsr_train.comparison.tables import table_scoring
from lsr_train.config.recipes import config_from_text
from lsr_train.device import choose_device
from lsr_train.report.html import (
    ReportPage,
    Section,
    ShownRun,
    configuration_section,
    curves_section,
    environment_section,
    network_sections,
    render_page,
    summary_section,
)
from lsr_train.runs.folder import RunFolder, describe_environment

__all__ = ["report"]

logger = logging.getLogger(__name__)


def report(options: ReportOptions) -> int:
    """Write the page.

    Returns:
        0; 6 where a run, or an unusable frame, was left out: the page and the log name it.

    Raises:
        InputError: no run is left, or the place cannot be written.
    """
    out = Path(options.out)
    refuse_existing(out, overwrite=options.overwrite)
    check_output_folder(out.parent)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.uses_labels:
        choose_device(options.device, options.precision)
    left_out: list[str] = []
    runs, tables = _read(options.named, left_out)
    sections = [summary_section(runs)] if runs else []
    with styled(letters=False):
        for place, name in enumerate(tables):
            sections += _table_sections(options, f"table-{place}", name, tables[name], left_out)
    if runs:
        with styled(letters=False):
            curves = curves_section(runs)
            sections += [] if curves is None else [curves]
            if options.uses_labels:
                sections += network_sections(options, {name: run.path for name, run in runs.items()}, left_out)
        sections += [configuration_section(runs), environment_section(runs)]
    page = ReportPage(
        title=" · ".join([*runs, *tables]), subtitle=_subtitle(options, sections), left_out=left_out, sections=sections
    )
    text = render_page(page)
    write_text(out, text, overwrite=options.overwrite)
    logger.info("%s: %d runs, %.1f MB", out, len(runs) + len(tables), len(text.encode()) / 1e6)
    return 6 if left_out else 0


def _table_sections(
    options: ReportOptions, key: str, name: str, document: Mapping[str, Any], left_out: list[str]
) -> list[Section]:
    """Return a table, and pictures of its first and its best network on the labelled frames it was scored on."""
    parts = [comparison_table(document, "figures"), comparison_table(document, "classes")]
    folder = options.named[name]
    networks = table_networks(folder, document)
    text, pictures, missing = [], list[Section](), list[str]()
    if not networks:
        text = [f"No pictures: none of its runs lies in {folder.name}, beside the table."]
    else:
        try:
            found = network_sections(
                options if options.uses_labels else _scored_alike(options, folder), networks, missing
            )
            pictures = [
                replace(section, key=f"{key}-{section.key}", title=f"{name}: {section.title}", headline="")
                for section in found
                if section.key != "scores"
            ]
        except LsrError as error:
            missing.append(str(error))
            logger.error("the pictures of %s are left out: %s", name, error)
    left_out += [f"{name}, its pictures: {line}" for line in missing]
    return [Section(key=key, title=name, headline=parts[0].headline, text=text, tables=parts), *pictures]


def _scored_alike(options: ReportOptions, folder: Path) -> ReportOptions:
    """Return the options with the labelled frames that a table was scored on."""
    scoring = table_scoring(folder)
    names = {item.name for item in fields(ReportOptions)} & {item.name for item in fields(scoring)}
    kept = {"out", "overwrite", "json", "device", "precision", "threads", "on_bad"}
    return replace(options, **{name: getattr(scoring, name) for name in names - kept})


def _read(named: Mapping[str, Path], left_out: list[str]) -> tuple[dict[str, ShownRun], dict[str, dict[str, Any]]]:
    """Read runs and tables; what cannot be read is named and left out, and raises where nothing is left."""
    runs: dict[str, ShownRun] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, path in named.items():
        try:
            if (path / "table.json").is_file():
                tables[name] = _read_table(path / "table.json")
            else:
                runs[name] = _read_run(path)
        except LsrError as error:
            left_out.append(f"{name}: {error}")
            logger.error("%s is left out: %s", name, error)
    if not runs and not tables:
        raise InputError(f"no run is left to show. {' '.join(left_out)}")
    return runs, tables


def _read_run(path: Path) -> ShownRun:
    file = path / "config.yaml"
    if not file.is_file():
        raise InputError(f"{path}: this is no run (no config.yaml in it).")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read.") from error
    run = RunFolder(path)
    try:
        status = run.status()
        status["step"], status["steps"], status["state"]
        for table in (run.metrics, run.signals, run.classes, run.gradients):
            table.read()
    except (KeyError, ValueError, OSError, csv.Error) as error:
        raise InputError(f"{path}: the run is damaged ({type(error).__name__} {error}).") from error
    config = config_from_text(text, str(file), lenient=True)
    return ShownRun(path=path, config=config, text=text, status=status, environments=run.environments())


def _read_table(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if (document["kind"], document["format"]) != ("comparison", TABLE_FORMAT):
            raise InputError(f"{file}: a table of another version of `compare`. Make it again.")
        comparison_table(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: this is no table of `compare` ({type(error).__name__} {error}).") from error
    return dict(document)


def _subtitle(options: ReportOptions, sections: Sequence[Section]) -> str:
    """Return the version that made the page, and the labels it read."""
    made = describe_environment(torch.device("cpu"))
    commit = f", commit {made['commit'][:12]}" if made["commit"] else ""
    labels = "No labelled frame was used."
    if any(section.frames for section in sections):
        labels = "Labelled frames that a table was scored on were used for pictures."
    if options.uses_labels:
        data = Path(options.data).name if options.data else options.layout
        labels = f"Labelled frames of {data}{f' {options.split}' * bool(options.split)} were used for this page alone."
    return f"lsr_train {made['version']}{commit}. {labels}"
