"""What `ablate` does once its command line is understood: rows that are one row changed, or a search of its fields."""

import re
from dataclasses import replace
from pathlib import Path

from lsr_infer.errors import UsageError
from lsr_train.comparison.matrix import folder_name
from lsr_train.comparison.options import AblateOptions, Words
from lsr_train.comparison.plan import chosen_rows, read_comparison
from lsr_train.comparison.search_runs import search
from lsr_train.comparison.table_plan import plan_table
from lsr_train.comparison.tables import make_table
from lsr_train.comparison.variants import spans_of, sweeps, without_each

__all__ = ["ablate"]


def ablate(options: AblateOptions, words: Words) -> int:
    """Train and score what is not there yet, and write the table; or search.

    Args:
        options: the command's own.
        words: those for the runs.

    Returns:
        0; 6 where a run failed or its folder is damaged or another's: it is named.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    comparison = read_comparison(options.recipe)
    (row,) = chosen_rows(comparison, [options.row], "row")
    if not row.train:
        raise UsageError(f"row {row.name} is not trained, so there is nothing to vary. Set --row.")
    what = "search" if options.search else "ablation"
    out = Path(options.out or f"runs/{comparison.name}-{folder_name(row.name)}-{what}")
    plan = plan_table(replace(comparison, rows=(row,)), options, words, out)
    config = plan.run(row, plan.start(options.seed_list[0]).model, options.seed_list[0]).config
    if options.search:
        return search(plan, row, spans_of(config, options.search), options)
    rows = sweeps(row, config, options.sweep) if options.sweep else without_each(row, config)
    name = re.sub(r"\s+", " ", f"{comparison.name}: {row.name}")
    return make_table(replace(comparison, name=name, rows=rows), options, words, out)
