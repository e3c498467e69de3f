"""Defines the options of `compare` and `ablate`, and sorts a command line by what it is about. No torch here."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from jsonargparse import ArgumentParser

from lsr_infer.errors import UsageError
from lsr_train.config.command_line import parse, run_options, unknown_option

__all__ = ["EPILOG", "AblateOptions", "CompareOptions", "TableArguments", "TableOptions", "read_options"]

EPILOG = (
    "Every --section.field VALUE of a training command is taken, too: what concerns data, network and device holds for "
    "all runs, the rest for those that adapt; --source_stage.SECTION.FIELD and --target_only.SECTION.FIELD set what "
    "only the source stage and the supervised bound have. "
    "--source and --target stand for --data.source.root and --data.target.root. The same command resumes where an "
    "earlier one was interrupted, and skips what is done."
)
_STAGES = {"--source_stage.": "source_stage", "--target_only.": "target_only"}


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Where a table of runs is made, and with what it is scored.

    Args:
        recipe: a comparison by name, or a YAML file: its runs, and the recipes they follow.
        seeds: how many seeds, from 0 on; or the seeds themselves, such as 0,2,5.
        out: folder of the table and all of its runs.
        init: source checkpoint to start from instead of training one; {seed} stands for the seed.
        data: folder of the labelled images that are scored; empty is that of the target.
        supervised: result of target-supervised training (evaluate --out), for mASR where target-only is no run.
        devices: where runs are trained at the same time, with commas, such as cuda:0,cuda:1 or cpu,cpu; on Ray the kind
            of device that each run takes: auto, cpu or cuda.
        on: what runs them: `local`, processes on this machine, or `ray`, a cluster whose nodes share all folders.
        address: of a Ray cluster, such as auto; empty starts Ray on this machine.
        cpus: cores that each run takes on Ray.
        json: print the table as JSON.

    Raises:
        UsageError: a value is not allowed.
    """

    recipe: str = ""
    seeds: str = "1"
    out: str = ""
    init: str = ""
    data: str = ""
    supervised: str = ""
    devices: str = "auto"
    on: Literal["local", "ray"] = "local"
    address: str = ""
    cpus: int = 1
    json: bool = False

    def __post_init__(self) -> None:
        if not self.recipe:
            raise UsageError("no comparison is named. Set --recipe, such as --recipe toytown.")
        _ = self.seed_list
        if self.cpus < 1:
            raise UsageError(f"cpus is {self.cpus}; at least 1 is needed. Set --cpus.")
        if self.on == "local" and (self.address or self.cpus != 1):
            raise UsageError("--address and --cpus are about Ray. Set --on ray, or leave them out.")
        if self.on == "ray" and self.devices not in ("auto", "cpu", "cuda"):
            raise UsageError(f"devices is {self.devices!r}; allowed with --on ray: auto, cpu, cuda. Set --devices.")

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds."""
        if not re.fullmatch(r"\d{1,9}(,\d{1,9})*,?", self.seeds) or self.seeds.strip("0") == "":
            raise UsageError(f"seeds is {self.seeds!r}; a number such as 3, or seeds such as 0,2,5, is needed.")
        numbers = [int(word) for word in self.seeds.split(",") if word]
        if len(set(numbers)) < len(numbers):
            raise UsageError(f"seeds is {self.seeds!r}; one of them comes twice. Set --seeds.")
        return tuple(numbers) if "," in self.seeds else tuple(range(numbers[0]))

    @property
    def device_list(self) -> tuple[str, ...]:
        """The devices."""
        return _words(self.devices)


@dataclass(frozen=True, kw_only=True)
class CompareOptions(TableOptions):
    """Which methods are compared; the rest as any table.

    Args:
        methods: runs by name, with commas; empty means all. FILE.py:CLASS adds a method of your own.
    """

    methods: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The runs that are asked for; empty means all."""
        return _words(self.methods)


@dataclass(frozen=True, kw_only=True)
class AblateOptions(TableOptions):
    """Which run is varied, and how; the rest as any table.

    Without `sweep` and `search`, each of its terms is left out in turn, and feature labels by plain subsampling take
    the place of the histogram's (Fig. 3a).

    Args:
        run: run of the comparison, or a method of your own as FILE.py:CLASS.
        sweep: FIELD=VALUE,VALUE,... trains the run with each; several flags make every combination.
        search: FIELD=LOW..HIGH searches values that raise the label-free signal (selection.signal); no label is read.
            Append :log or :linear; without, it is log where both are above 0 and tenfold apart.
        trials: how many points a search has, the run's own values first.

    Raises:
        UsageError: a value is not allowed.
    """

    run: str = "lsr-em"
    sweep: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    trials: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweep and self.search:
            raise UsageError("--sweep and --search are two commands. Leave one out.")
        if not 1 <= self.trials <= 100_000:
            raise UsageError(f"trials is {self.trials}; allowed: 1 to 100000. Set --trials.")
        for name, value in (("data", self.data), ("supervised", self.supervised)):
            if self.search and value:
                raise UsageError(f"--{name} is about labels, and a search reads none. Leave it out.")


Options = TypeVar("Options", bound=TableOptions)


@dataclass(frozen=True, kw_only=True)
class TableArguments:
    """A command line, by what its arguments are about."""

    own: list[str] = field(default_factory=list)  # the command's options
    runs: list[str] = field(default_factory=list)  # for all runs
    source_stage: list[str] = field(default_factory=list)  # for the source stage alone
    target_only: list[str] = field(default_factory=list)  # for supervised training on the target alone


def _sorted(argv: list[str], own: set[str]) -> TableArguments:
    """Tell the command's own options from those for the runs."""
    found = TableArguments()
    taking = found.own
    for argument in argv:
        flag = argument.partition("=")[0]
        stage = next((prefix for prefix in _STAGES if flag.startswith(prefix)), None)
        if stage is not None:
            taking, argument = getattr(found, _STAGES[stage]), f"--{argument.removeprefix(stage)}"
        elif flag in own:
            taking = found.own
        elif flag.startswith("--"):
            taking = found.runs
        taking.append(argument)
    return found


def read_options(program: str, argv: list[str], kind: type[Options]) -> tuple[Options, TableArguments]:
    """Read what follows a command's name: its options, and all arguments by what they are about.

    A field of `kind` that is a tuple is a flag that may come several times.

    Raises:
        UsageError: an argument or a value is not allowed.
    """
    fields = dataclasses.fields(kind)
    arguments = _sorted(argv, {f"--{item.name}" for item in fields} | {"--help", "-h"})
    program = f"python -m lsr_train {program}"
    known = run_options()
    for argument in arguments.runs:
        name = argument.removeprefix("--").partition("=")[0]
        if argument.startswith("--") and name not in known:
            raise unknown_option(name, {item.name for item in fields} | known, program)
    repeated = {item.name for item in fields if item.default == ()}
    parser = ArgumentParser(prog=program, allow_abbrev=False, exit_on_error=False, epilog=EPILOG)
    parser.add_class_arguments(kind, as_group=False, skip={"json", *repeated})
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    for name in sorted(repeated):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="FIELD=…", help=_help_of(kind, name))
    namespace = parse(parser, arguments.own)
    values: dict[str, Any] = {item.name: getattr(namespace, item.name) for item in fields}
    values |= {name: tuple(values[name]) for name in repeated}
    return kind(**values), arguments


def _help_of(kind: type[TableOptions], name: str) -> str:
    """Return the docstring's text about a field."""
    found = re.search(rf"^ +{name}: (.*?)(?=\n +\w+: |\n\n|\Z)", kind.__doc__ or "", re.MULTILINE | re.DOTALL)
    return "" if found is None else " ".join(found[1].split())
