"""How well each label-free signal ranks checkpoints, against their true mIoU on labelled target frames.

    python tests/benchmarks/selection_ranking.py RUN… --target camvid --layout camvid --split val --source streets

Every checkpoint of every run is looked at (train with a large --train.keep to have many). The labels are used for this
ranking alone. With --source, the mIoU on labelled source frames that nothing was trained on is ranked too. Prints JSON:
Spearman's rank correlation of each signal, and every checkpoint's figures.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from scipy.stats import spearmanr

from lsr_train.config.data import DataConfig, SourceConfig, TargetConfig
from lsr_train.config.run import Config
from lsr_train.data.labelled import open_labelled
from lsr_train.data.loading import build_target
from lsr_train.device import choose_precision
from lsr_train.evaluation.scores import score_frames
from lsr_train.evaluation.signals import label_free_signals
from lsr_train.runs.checkpoint import load_model
from lsr_train.runs.folder import MODEL_FILE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--target", required=True)
    parser.add_argument("--layout", default="camvid")
    parser.add_argument("--signal-split", default="train", help="split whose frames give the signals, without labels")
    parser.add_argument("--split", default="val", help="labelled split that gives the true mIoU")
    parser.add_argument("--source", default="", help="labelled source data: adds its held-out mIoU as a signal")
    parser.add_argument("--source-layout", default="folder")
    parser.add_argument("--source-split", default="val")
    parser.add_argument("--source-ids", default="cityscapes-trainid")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    precision = choose_precision(torch.device("cpu"), arguments.precision)
    rows = []
    models = sorted(path for run in arguments.runs for path in run.glob(f"checkpoints/step-*/{MODEL_FILE}"))
    for path in models:
        network, info = load_model(path)
        assert info.label_space is not None
        size = (info.height, info.width)
        target = TargetConfig(
            layout=arguments.layout, root=arguments.target, split=arguments.signal_split, height=size[0], width=size[1]
        )
        source = SourceConfig(height=size[0], width=size[1])
        frames = build_target(Config(data=DataConfig(source=source, target=target))).evenly(arguments.frames)
        signals = label_free_signals(network, frames.batches(8), precision=precision).higher_is_better()
        space = info.label_space
        if arguments.source:
            held_out = SourceConfig(
                layout=arguments.source_layout, root=arguments.source, split=arguments.source_split,
                ids=arguments.source_ids, height=size[0], width=size[1],
            )  # fmt: skip
            signals["source"] = score_frames(
                network, open_labelled(held_out, space), size, space.num_classes, precision=precision
            )
        labelled = replace(source, layout=arguments.layout, root=arguments.target, split=arguments.split)
        truth = score_frames(network, open_labelled(labelled, space), size, space.num_classes, precision=precision)
        rows.append({"checkpoint": f"{path.parents[2].name}/{path.parent.name}", "miou": truth, **signals})
    names = [name for name in rows[0] if name not in ("checkpoint", "miou")]
    truth_column = [row["miou"] for row in rows]
    ranking = {name: float(spearmanr([row[name] for row in rows], truth_column).statistic) for name in names}
    print(json.dumps({"checkpoints": len(rows), "spearman": ranking, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
