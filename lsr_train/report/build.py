"""What `report` does once its command line is understood: read the runs, look at their networks, and write the page."""

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lsr_infer.errors import InputError, LsrError
from lsr_infer.io.atomic import write_text
from lsr_infer.io.paths import check_place, refuse_existing
from lsr_train.analysis.analyze import gradient_curves, signals_of, training_curves
from lsr_train.analysis.drawings import styled, terms_figure
from lsr_train.analysis.options import CAPTIONS
from lsr_train.comparison.document import TABLE_FORMAT, comparison_table
from lsr_train.config.command_line import config_from_text
from lsr_train.config.fields import fields_of
from lsr_train.config.run import Config
from lsr_train.device import choose_device
from lsr_train.evaluation.result import Table
from lsr_train.report.networks import embedded, network_sections
from lsr_train.report.options import ReportOptions
from lsr_train.report.page import Fold, Page, Picture, Section, render
from lsr_train.runs.environment import describe_environment
from lsr_train.runs.folder import RunFolder

__all__ = ["report"]

logger = logging.getLogger(__name__)

_TABLE = "table.json"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run that is shown.

    Args:
        path: its folder.
        config: its configuration.
        text: the same as it lies there.
        status: how far it is.
        environments: what it was computed with.
    """

    path: Path
    config: Config
    text: str
    status: Mapping[str, Any]
    environments: Sequence[Mapping[str, Any]]


def report(options: ReportOptions) -> int:
    """Write the page.

    Returns:
        0; 6 where a run, or an unusable frame, was left out: the page and the log name it.

    Raises:
        InputError: no run is left, or the place cannot be written.
        LsrError: with the exit code of what else went wrong.
    """
    out = Path(options.out)
    refuse_existing(out, overwrite=options.overwrite)
    check_place(out.parent)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.looks:
        choose_device(options.device, options.precision)
    left_out: list[str] = []
    runs, tables = _read(options.named, left_out)
    sections = [_summary(runs), *_comparisons(tables)] if runs else _comparisons(tables)
    with styled(letters=False):
        if runs:
            sections += _logged(runs)
        if options.looks and runs:
            sections += network_sections(options, {name: run.path for name, run in runs.items()}, left_out)
    if runs:
        sections += [_configuration(runs), _environments(runs)]
    page = Page(title=" · ".join([*runs, *tables]), subtitle=_subtitle(options), left_out=left_out, sections=sections)
    text = render(page)
    write_text(out, text, overwrite=options.overwrite)
    logger.info("%s: %d runs, %.1f MB", out, len(runs) + len(tables), len(text.encode()) / 1e6)
    return 6 if left_out else 0


def _read(named: Mapping[str, Path], left_out: list[str]) -> tuple[dict[str, _Run], dict[str, dict[str, Any]]]:
    """Read runs and tables; what cannot be read is named and left out.

    Raises:
        InputError: nothing is left.
    """
    runs: dict[str, _Run] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, path in named.items():
        try:
            if (path / _TABLE).is_file():
                tables[name] = _read_table(path / _TABLE)
            else:
                runs[name] = _read_run(path)
        except LsrError as error:
            left_out.append(f"{name}: {error}")
            logger.error("%s is left out: %s", name, error)
    if not runs and not tables:
        raise InputError(f"no run is left to show. {' '.join(left_out)}")
    return runs, tables


def _read_run(path: Path) -> _Run:
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
    return _Run(path=path, config=config, text=text, status=status, environments=run.environments())


def _read_table(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if (document["kind"], document["format"]) != ("comparison", TABLE_FORMAT):
            raise InputError(f"{file}: a table of another version of `compare`. Make it again.")
        comparison_table(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: this is no table of `compare` ({type(error).__name__} {error}).") from error
    return dict(document)


def _subtitle(options: ReportOptions) -> str:
    """Say what made the page, and with what labels."""
    made = describe_environment(torch.device("cpu"))
    commit = f", commit {made['commit'][:12]}" if made["commit"] else ""
    looked = "No labelled frame was looked at."
    if options.looks:
        data = Path(options.data).name if options.data else options.layout
        looked = (
            f"Labelled frames of {data}{f' {options.split}' * bool(options.split)} were looked at for this page alone."
        )
    return f"lsr_train {made['version']}{commit}. {looked}"


# -- what the runs logged -------------------------------------------------------------------------------------------


def _summary(runs: Mapping[str, _Run]) -> Section:
    """Return how far each run is and where it began."""
    rows = {
        "method": [run.config.method for run in runs.values()],
        "state": [_state(run.status) for run in runs.values()],
        "selected step": [_selected(run) for run in runs.values()],
        "starts from": [_start(run.config.init) for run in runs.values()],
        "network": [f"{r.config.network.backbone} x {r.config.network.width:g}" for r in runs.values()],
        "seed": [str(run.config.seed) for run in runs.values()],
    }
    for signal in dict.fromkeys(name for run in runs.values() for name in signals_of(run.path)):
        rows[f"{signal}, first and last look"] = [
            _first_and_last(signals_of(run.path).get(signal)) for run in runs.values()
        ]
    table = Table(header=("", *runs), rows=tuple((name, *cells) for name, cells in rows.items()))
    return Section(key="runs", title="Runs", tables=[table])


def _state(status: Mapping[str, Any]) -> str:
    return f"{status['state']}, step {status['step']} of {status['steps']}"


def _start(init: str) -> str:
    """Name a checkpoint by its run, without the places around it."""
    parts = [part for part in Path(init).parts if part != "checkpoints"]
    named = 2 if parts and (parts[-1] in ("last", "best") or parts[-1].startswith(("step-", "seed-"))) else 1
    return "/".join(parts[-named:]) or "-"


def _selected(run: _Run) -> str:
    best = (run.status.get("selection") or {}).get("best_step")
    return "none" if best is None else str(best)


def _first_and_last(series: tuple[Sequence[int], Sequence[float]] | None) -> str:
    return "-" if series is None else f"{series[1][0]:.3f} → {series[1][-1]:.3f}"


def _comparisons(tables: Mapping[str, Mapping[str, Any]]) -> list[Section]:
    """Return the tables of `compare`."""
    return [
        Section(
            key=f"table-{place}",
            title=name,
            tables=[comparison_table(document, "figures"), comparison_table(document, "classes")],
        )
        for place, (name, document) in enumerate(tables.items())
    ]


def _logged(runs: Mapping[str, _Run]) -> list[Section]:
    """Return curves of what was logged."""
    found: list[Picture] = []
    for title, read, label, caption, log in (
        ("Label-free signals", signals_of, "higher is better", "Of unlabelled target frames, at each look.", False),
        ("Training curves", training_curves, "value", CAPTIONS["curves"], False),
        ("Gradient norms", gradient_curves, "norm", CAPTIONS["gradients"], True),
    ):
        series = {name: read(run.path) for name, run in runs.items()}
        series = {name: item for name, item in series.items() if item}
        if series:
            found.append(embedded(title, terms_figure(series, label, log=log), caption))
    return [Section(key="curves", title="Curves", figures=found)] if found else []


def _configuration(runs: Mapping[str, _Run]) -> Section:
    """Return the fields in which runs differ, and every configuration as it is."""
    values = [dict(fields_of(run.config)) for run in runs.values()]
    names = [name for name in values[0] if any(other[name] != values[0][name] for other in values[1:])]
    rows = tuple((name, *(_shown(value[name]) for value in values)) for name in names)
    tables = [Table(header=("field that differs", *runs), rows=rows)] if rows else []
    folds = [Fold(title=f"{name}: config.yaml", text=run.text) for name, run in runs.items()]
    return Section(key="configuration", title="Configuration", tables=tables, folds=folds)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"…{text[-58:]}"


def _environments(runs: Mapping[str, _Run]) -> Section:
    """Return what each run was computed with; where it was gone on with elsewhere, both."""
    rows: dict[str, list[str]] = {}
    keys = ("device", "cores", "threads", "memory_gib", "system", "python", "version", "commit", "begun")
    for run in runs.values():
        for key in keys:
            values = dict.fromkeys(str(entry.get(key, "-")) for entry in run.environments)
            rows.setdefault(key, []).append("; ".join(values) or "-")
        packages = run.environments[-1].get("packages", {}) if run.environments else {}
        rows.setdefault("packages", []).append(
            ", ".join(f"{name} {version}" for name, version in packages.items()) or "-"
        )
        rows.setdefault("precision", []).append(run.config.train.precision)
    table = Table(header=("", *runs), rows=tuple((name, *cells) for name, cells in rows.items()))
    return Section(key="environment", title="Hardware and versions", tables=[table])
