"""Runs `distill`: from an adapted network to a small one that has learnt its predictions on the same footage."""

import re

from lsr_infer.errors import UsageError
from lsr_train.config.command_line import training_request

__all__ = ["HELP", "expand", "main"]

HELP = """\
usage: python -m lsr_train distill TEACHER --source DIR --target DIR|GLOB|VIDEO [OPTIONS]
       python -m lsr_train distill --resume RUN

Trains a small student to predict what a finished network, the teacher, predicts on the footage.
TEACHER is a run folder, a checkpoint folder or a model file.

Options (defaults in brackets; a recipe may set others):
  --source DIR              labelled images of a simulator: images/, labels/ and classes.yaml
  --target DIR|GLOB|VIDEO   unlabelled footage of the camera
  --student NAME            the student's backbone: resnet18, resnet34, resnet50 or resnet101
                            [resnet18]
  --width FACTOR            of its channels; 0.5 halves them [1.0]
  --size WxH                its input size, such as 320x240 [1024x512]
  --network.weights W       what it starts from: imagenet, none, a file, or teacher (its channels)
                            [imagenet]
  --out RUN                 the run folder to make [runs/my_footage_distill]
  --resume RUN              continue an interrupted run
  --recipe NAME|FILE        settings by name, or a YAML file [my_footage_distill]
  --distill.temperature T   divides the logits of both before they are compared [1.0]
  --distill.teacher_size S  the teacher sees images at the student's size, or at its own [student]
  --train.steps N           length [10000]
  --data.batch_size N       images of each domain in a step [4]
  --train.device DEVICE     auto, cpu, cuda or cuda:N [auto]
  --print_config            show the whole resolved configuration, and do nothing else

Examples:
  python -m lsr_train distill runs/adapted --source SIMULATOR --target CLIP.mp4 --size 640x352
  python -m lsr_train distill runs/adapted --recipe toytown_distill --out runs/student

More: --help all shows every option, --help SECTION one of network, data, augment, optim, train,
distill, self_training, weights, …
"""

_SIZE = re.compile(r"(\d+)x(\d+)")


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    request = training_request("distill", expand(argv))
    if request is None:
        return 0
    from lsr_train.engine.train import train  # torch comes in here, after every usage error

    return train(request)


def expand(argv: list[str]) -> list[str]:
    """Replace the teacher in front and `--size WxH` by the fields they stand for.

    Raises:
        UsageError: the size is not written as width x height.
    """
    rest = list(argv)
    expanded: list[str] = []
    if rest and not rest[0].startswith("-"):
        expanded.append(f"--distill.teacher={rest.pop(0)}")
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        if word != "--size":
            expanded.append(word + equals + value)
            continue
        if not equals:
            value = rest.pop(0) if rest else ""
        match = _SIZE.fullmatch(value)
        if match is None:
            raise UsageError(f"--size is {value!r}; write the student's input as width x height, such as 320x240.")
        width, height = (int(part) for part in match.groups())
        for domain in ("source", "target"):
            expanded += [f"--data.{domain}.width={width}", f"--data.{domain}.height={height}"]
    return expanded
