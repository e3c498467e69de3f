"""What the commands that make a table of runs are given, and which word is about what. No torch here."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jsonargparse import ArgumentParser

from lsr_infer.errors import UsageError
from lsr_train.config.parser import parse

__all__ = ["EPILOG", "AblateOptions", "CompareOptions", "TableOptions", "Words", "read_options"]

EPILOG = (
    "Every --section.field VALUE of a training command is taken, too: what concerns data, network and device holds for "
    "all runs, the rest for those that adapt; --source_stage.SECTION.FIELD and --target_only.SECTION.FIELD set what "
    "only the source stage and the supervised bound have. "
    "--source and --target stand for --data.source.root and --data.target.root. The same command goes on where an "
    "earlier one was interrupted, and skips what is done."
)
_STAGES = {"--source_stage.": "source_stage", "--target_only.": "target_only"}
_SWITCHES = ("json",)


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Where a table of runs is made, and with what it is scored.

    Args:
        recipe: a comparison by name, or a YAML file: its rows, and the recipes they follow.
        seeds: how many seeds, from 0 on; or the seeds themselves, such as 0,2,5.
        out: folder of the table and all of its runs.
        init: source checkpoint to start from instead of training one; {seed} stands for the seed.
        data: folder of the labelled images that are scored; empty is that of the target.
        supervised: result of target-supervised training (evaluate --out), for mASR where target-only is no row.
        devices: where runs go on at the same time, with commas, such as cuda:0,cuda:1 or cpu,cpu.
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
    json: bool = False

    def __post_init__(self) -> None:
        if not self.recipe:
            raise UsageError("no comparison is named. Set --recipe, such as --recipe toytown.")
        _ = self.seed_list

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
        return tuple(name.strip() for name in self.devices.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class CompareOptions(TableOptions):
    """What is compared; the rest as any table.

    Args:
        methods: rows by name, with commas; empty means all. FILE.py:CLASS adds a method of your own.

    Raises:
        UsageError: a value is not allowed.
    """

    methods: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The rows that are asked for; empty means all."""
        return tuple(name.strip() for name in self.methods.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class AblateOptions(TableOptions):
    """Which row is varied, and how; the rest as any table.

    Without `sweep` and `search`, each of its terms is left out in turn, and feature labels by plain subsampling take
    the place of the histogram's (Fig. 3a).

    Args:
        row: row of the comparison, or a method of your own as FILE.py:CLASS.
        sweep: FIELD=VALUE,VALUE,... trains the row with each; several flags make every combination.
        search: FIELD=LOW..HIGH searches values that raise the label-free signal (selection.signal); no label is read.
            Behind it :log or :linear; without, it is log where both are above 0 and tenfold apart.
        trials: how many points a search has, the row's own values first.

    Raises:
        UsageError: a value is not allowed.
    """

    row: str = "lsr-em"
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
class Words:
    """The words of a command line, by what they are about.

    Args:
        own: the command's options.
        runs: for all runs.
        source_stage: for the source stage alone.
        target_only: for supervised training on the target alone.
    """

    own: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    source_stage: list[str] = field(default_factory=list)
    target_only: list[str] = field(default_factory=list)


def _sorted(arguments: list[str], own: set[str]) -> Words:
    """Tell the command's own words from those for the runs."""
    found = Words()
    taking = found.own
    for word in arguments:
        flag = word.partition("=")[0]
        stage = next((prefix for prefix in _STAGES if flag.startswith(prefix)), None)
        if stage is not None:
            taking, word = getattr(found, _STAGES[stage]), f"--{word.removeprefix(stage)}"
        elif flag in own:
            taking = found.own
        elif flag.startswith("--"):
            taking = found.runs
        taking.append(word)
    return found


def read_options(program: str, arguments: list[str], kind: type[Options]) -> tuple[Options, Words]:
    """Read a command line.

    Args:
        program: the command's name.
        arguments: the words after it.
        kind: the command's options; a field that is a tuple is a flag that may come several times.

    Returns:
        The options, and all words by what they are about.

    Raises:
        UsageError: a word or a value is not allowed.
    """
    fields = dataclasses.fields(kind)
    words = _sorted(arguments, {f"--{item.name}" for item in fields} | {"--help", "-h"})
    repeated = {item.name for item in fields if item.default == ()}
    program = f"python -m lsr_train {program}"
    parser = ArgumentParser(prog=program, allow_abbrev=False, exit_on_error=False, epilog=EPILOG)
    parser.add_class_arguments(kind, as_group=False, skip={*_SWITCHES, *repeated})
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    for name in sorted(repeated):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="FIELD=…", help=_help_of(kind, name))
    namespace = parse(parser, words.own)
    values: dict[str, Any] = {item.name: getattr(namespace, item.name) for item in fields}
    values |= {name: tuple(values[name]) for name in repeated}
    return kind(**values), words


def _help_of(kind: type[TableOptions], name: str) -> str:
    """Return what the docstring says of a field."""
    found = re.search(rf"^ +{name}: (.*?)(?=\n +\w+: |\n\n|\Z)", kind.__doc__ or "", re.MULTILINE | re.DOTALL)
    return "" if found is None else " ".join(found[1].split())
