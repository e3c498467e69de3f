"""`compare`: every method of a table, from one source stage. Here is only what the command line means; no torch."""

import dataclasses
import re
from dataclasses import dataclass, field

from jsonargparse import ArgumentParser

from lsr_infer.errors import UsageError
from lsr_train.commands.parser import parse

__all__ = ["CompareOptions", "Words", "main"]

_STAGES = {"--source_stage.": "source_stage", "--target_only.": "target_only"}
_EPILOG = (
    "Every --section.field VALUE of a training command is taken, too: what concerns data, network and device holds for "
    "all runs, the rest for those that adapt; --source_stage.SECTION.FIELD and --target_only.SECTION.FIELD set what "
    "only the source stage and the supervised bound have. "
    "--source and --target stand for --data.source.root and --data.target.root. The same command goes on where an "
    "earlier one was interrupted, and skips what is done."
)


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What is compared, where, and with what it is scored.

    Args:
        recipe: a comparison by name, or a YAML file: its rows, and the recipes they follow.
        methods: rows by name, with commas; empty means all. FILE.py:CLASS adds a method of your own.
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
    methods: str = ""
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
        if not re.fullmatch(r"\d{1,9}(,\d{1,9})*,?", self.seeds) or self.seeds == "0":
            raise UsageError(f"seeds is {self.seeds!r}; a number such as 3, or seeds such as 0,2,5, is needed.")
        numbers = [int(word) for word in self.seeds.split(",") if word]
        if len(set(numbers)) < len(numbers):
            raise UsageError(f"seeds is {self.seeds!r}; one of them comes twice. Set --seeds.")
        return tuple(numbers) if "," in self.seeds else tuple(range(numbers[0]))

    @property
    def names(self) -> tuple[str, ...]:
        """The rows that are asked for; empty means all."""
        return tuple(name.strip() for name in self.methods.split(",") if name.strip())

    @property
    def device_list(self) -> tuple[str, ...]:
        """The devices."""
        return tuple(name.strip() for name in self.devices.split(",") if name.strip())


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


def _sorted(arguments: list[str]) -> Words:
    """Tell the command's own words from those for the runs."""
    own_flags = {f"--{item.name}" for item in dataclasses.fields(CompareOptions)} | {"--help", "-h"}
    found = Words()
    taking = found.own
    for word in arguments:
        flag = word.partition("=")[0]
        stage = next((prefix for prefix in _STAGES if flag.startswith(prefix)), None)
        if stage is not None:
            taking, word = getattr(found, _STAGES[stage]), f"--{word.removeprefix(stage)}"
        elif flag in own_flags:
            taking = found.own
        elif flag.startswith("--"):
            taking = found.runs
        taking.append(word)
    return found


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    words = _sorted(arguments)
    parser = ArgumentParser(prog="python -m lsr_train compare", allow_abbrev=False, exit_on_error=False, epilog=_EPILOG)
    parser.add_class_arguments(CompareOptions, as_group=False, skip={"json"})
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    namespace = parse(parser, words.own)
    options = CompareOptions(
        **{item.name: getattr(namespace, item.name) for item in dataclasses.fields(CompareOptions)}
    )
    from lsr_train.commands.comparing import compare

    return compare(options, words)
