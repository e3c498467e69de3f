"""Runs `evaluate`: scores a checkpoint or an exported file on labelled images."""

from lsr_train.evaluation.options import evaluate_options

__all__ = ["HELP", "main"]

HELP = """\
usage: python -m lsr_train evaluate MODEL --data DIR --layout LAYOUT [OPTIONS]

Scores a network on labelled images: IoU of each class, their mean, and mASR against a supervised
result. MODEL is a run folder (its selected checkpoint, else its last), a .safetensors or .pth
file, or an exported .onnx or .engine, which the runtime that ships it runs.

Options (defaults in brackets):
  --data DIR                the labelled data set; Toytown needs none
  --layout LAYOUT           how it is arranged: folder, gta5, synthia, cityscapes, camvid,
                            toytown-camera … [folder]
  --split NAME              a split of it, such as val; without, everything
  --ids WHAT                what label files hold: auto, cityscapes-id, cityscapes-trainid,
                            synthia-id, classes [auto]
  --label_space S           classes to score in: a name, a YAML file, or the checkpoint's own
                            [auto]
  --limit N                 only the first so many images; 0 means all [0]
  --protocol P              native (logits at the labels' size) or resized (labels at the
                            network's) [native]
  --scales A,B              factors of the input size whose predictions are averaged [1]
  --flip                    average with the mirrored image, too
  --batch_norm WHICH        stored statistics, or target: estimated on --target [stored]
  --supervised RESULT.json  of target-supervised training (evaluate --out), for mASR
  --out RESULT.json         write the result there
  --overlays N              draw the N worst frames into --overlay_dir FOLDER [0]
  --overwrite               replace what is there
  --json                    print the result as JSON
  --device DEVICE           auto, cpu, cuda or cuda:N [auto]
  --precision P             auto, fp32, bf16 or fp16 [fp32]

Examples:
  python -m lsr_train evaluate runs/adapted --layout toytown-camera --split val --limit 60
  python -m lsr_train evaluate adapted.onnx --data CITYSCAPES --layout cityscapes --split val

More: --help all shows every option.
"""


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options = evaluate_options(argv)
    from lsr_train.evaluation.evaluate import score

    return score(options)
