"""Data sets, how they lie in folders, and how they become batches.

Import the modules: `layouts` (where files are), `scan` (what is wrong with them), `source` and `target` (data sets
indexed by sample number), `loading` (batches), `frames` (for evaluation), `toytown` (the embedded data). This package
itself imports nothing, so that Toytown stays free of torch.
"""

__all__: list[str] = []
