"""Runs a training command as one of several processes that share one device; gloo carries the sums between them.

python -m torch.distributed.run --nproc-per-node 2 -m tests.gpu_check.rank adapt …
"""

import os
import sys

import torch

from lsr_infer.errors import exit_status
from lsr_train.commands.dispatch import run

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    os.environ["LOCAL_RANK"] = "0"  # which accelerate takes for the number of the GPU
    sys.exit(exit_status(lambda: run(sys.argv[1:]), needs="train", argv=sys.argv[1:]))
