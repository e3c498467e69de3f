"""The document of a comparison, and the table that is made of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lsr_infer.labelspace import LabelSpace
from lsr_train.comparison.document import LeftOut, comparison_document, comparison_table
from lsr_train.comparison.matrix import ScoredRun, Training
from lsr_train.comparison.spec import ComparisonSpec, Published, RunSpec
from lsr_train.config.run import Config
from lsr_train.data.labels import LABEL_SPACES
from lsr_train.evaluation.result import result_document, subsets_in_words
from lsr_train.evaluation.scores import Evaluation
from lsr_train.evaluation.text_table import comma_separated, latex, markdown, terminal

SPACE = LABEL_SPACES["synthia13"]
IOU = {
    ("lsr", 0): 0.5, ("lsr", 1): 0.7, ("minent", 0): 0.5, ("minent", 1): 0.5, ("target-only", 0): 0.8,
    ("target-only", 1): 0.8,
}  # fmt: skip


def result(iou: float) -> dict[str, Any]:
    """Return a result in which every class has an IoU, from the pixels that give it."""
    right = 1000
    wrong = round((right / iou - right) / 2)
    matrix = torch.eye(SPACE.num_classes, dtype=torch.int64) * right
    matrix += torch.roll(torch.eye(SPACE.num_classes, dtype=torch.int64), 1, dims=1) * wrong
    counts = Evaluation(matrix=matrix, frames=2, void=0, frame_miou=(), worst=())
    about = {"text": "camera, val"}
    return result_document(
        counts, SPACE, model={"text": "m"}, data=about, protocol={"kind": "native", "text": "native"}
    )


@pytest.fixture
def scores(tmp_path: Path) -> list[ScoredRun]:
    entries = []
    for (name, seed), iou in IOU.items():
        file = tmp_path / name / f"seed-{seed}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(result(iou)), encoding="utf-8")
        method = {"weights": Config().weights, "method": "target-only"} if name == "target-only" else {}
        training = Training(name=name, folder=file.parent / f"seed-{seed}", config=Config(**method))
        entries.append(
            ScoredRun(run=RunSpec(name=name), seed=seed, training=training, start=None, model=file, result=file)
        )
    return entries


def comparison() -> ComparisonSpec:
    runs = tuple(RunSpec(name=name) for name in dict.fromkeys(name for name, _ in IOU))
    published = Published(source="their Table 1", miou={"lsr": 46.0})
    return ComparisonSpec(name="pair_of_two", source="s", base="b", evaluate={}, runs=runs, published=published)


def rows_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["run"]: row for row in document["rows"]}


def test_means_spreads_and_ratios(scores: list[ScoredRun]) -> None:
    left_out: list[LeftOut] = []
    row = rows_of(comparison_document(comparison(), scores, left_out, {}))["lsr"]
    miou = [entry["miou"] for entry in row["seeds"]]
    assert miou == pytest.approx([0.5, 0.7], abs=1e-3)
    assert left_out == []
    assert row["mean"]["miou"] == pytest.approx(sum(miou) / 2)
    assert row["spread"]["miou"] == pytest.approx(0.1 * 2**0.5, abs=1e-3)
    assert row["mean"]["masr"] == pytest.approx(0.75, abs=0.002)  # 60 of 80
    assert row["mean"]["iou"]["road"] == pytest.approx(0.6, abs=1e-3)
    assert row["mean"]["selected_miou"] is None  # nothing was selected


def point(training: Training, best: int, last: int) -> None:
    """Make the pointers of a run folder."""
    for name, step in (("best", best), ("last", last)):
        (training.folder / f"checkpoints/step-{step}").mkdir(parents=True, exist_ok=True)
        (training.folder / f"checkpoints/{name}").write_text(f"step-{step}\n", encoding="utf-8")


def test_the_selected_checkpoints_own_result_is_shown_beside(scores: list[ScoredRun]) -> None:
    scores[0].selected.write_text(json.dumps(result(0.6)), encoding="utf-8")
    assert scores[0].training is not None
    assert scores[1].training is not None
    point(scores[0].training, best=2, last=4)
    point(scores[1].training, best=4, last=4)
    seeds = rows_of(comparison_document(comparison(), scores, [], {}))["lsr"]["seeds"]
    assert [entry["selected_miou"] for entry in seeds] == pytest.approx([0.6, 0.7], abs=1e-3)
    assert [entry["miou"] for entry in seeds] == pytest.approx([0.5, 0.7], abs=1e-3)


def test_a_seed_that_diverged_or_is_missing_takes_the_mean_away(scores: list[ScoredRun]) -> None:
    scores[3].result.unlink()
    document = comparison_document(comparison(), scores, [], {scores[1].name: "not finite at step 3"})
    rows = rows_of(document)
    assert [entry["state"] for entry in rows["lsr"]["seeds"]] == ["done", "diverged"]
    assert rows["lsr"]["seeds"][1]["why"] == "not finite at step 3"
    assert rows["lsr"]["mean"] is None
    assert rows["minent"]["mean"] is None
    assert rows["target-only"]["mean"] is not None
    text = terminal(comparison_table(document))
    assert "1, 1 diverged" in text
    assert "lsr: seed 0 mIoU 50.0 %, seed 1 diverged; no mean is given." in text
    assert "1, 1 missing" in text


def test_what_was_left_out_has_no_figure_whatever_lies_there(scores: list[ScoredRun]) -> None:
    document = comparison_document(comparison(), scores, [LeftOut(name=scores[0].name, why="another run")], {})
    rows = rows_of(document)
    assert [entry["state"] for entry in rows["lsr"]["seeds"]] == ["missing", "done"]
    assert rows["lsr"]["mean"] is None


@pytest.mark.parametrize("missing", [4, 5])
def test_without_a_bound_at_one_seed_there_is_no_mean_ratio_and_a_note_tells(
    scores: list[ScoredRun], missing: int
) -> None:
    document = comparison_document(comparison(), scores, [], {scores[missing].name: "not finite"})
    row = rows_of(document)["lsr"]
    assert row["mean"]["miou"] is not None
    assert row["mean"]["masr"] is None
    assert any("no mASR for lsr, minent" in note for note in comparison_table(document).notes)


@pytest.mark.parametrize("damage", ["", "[]", '{"kind": "evaluation"}', "\x00"])
@pytest.mark.parametrize("which", [0, 2])
def test_a_damaged_result_is_named_and_left_out(scores: list[ScoredRun], damage: str, which: int) -> None:
    scores[which].result.write_text(damage, encoding="utf-8")
    left_out: list[LeftOut] = []
    document = comparison_document(comparison(), scores, left_out, {})
    assert [item.name for item in left_out] == [scores[which].name]
    assert str(scores[which].result) in left_out[0].why
    assert [row["run"] for row in document["rows"] if row["mean"] is None] == [scores[which].run.name]


def test_results_on_other_classes_are_left_out(scores: list[ScoredRun]) -> None:
    other = json.loads(scores[2].result.read_text(encoding="utf-8"))
    other["label_space"]["names"][0] = other["label_space"]["names"][0] + "s"
    scores[2].result.write_text(json.dumps(other), encoding="utf-8")
    left_out: list[LeftOut] = []
    comparison_document(comparison(), scores, left_out, {})
    assert [item.name for item in left_out] == [scores[2].name]


def test_a_supervised_result_stands_in_where_no_run_is_target_only(scores: list[ScoredRun], tmp_path: Path) -> None:
    others = [score for score in scores if score.run.name != "target-only"]
    without = rows_of(comparison_document(comparison(), others, [], {}))["lsr"]
    assert "masr" not in without["seeds"][0]
    (tmp_path / "bound.json").write_text(json.dumps(result(0.5)), encoding="utf-8")
    row = rows_of(comparison_document(comparison(), others, [], {}, tmp_path / "bound.json"))["lsr"]
    assert row["seeds"][0]["masr"] == pytest.approx(1)


def test_best_and_second_are_marked_and_the_bound_does_not_compete(scores: list[ScoredRun]) -> None:
    shown = comparison_table(comparison_document(comparison(), scores, [], {}))
    column = shown.header.index("mIoU")
    names = [row[0] for row in shown.rows if row is not None]
    assert {position for position in shown.best if position[1] == column} == {(names.index("lsr"), column)}
    assert {position for position in shown.second if position[1] == column} == {(names.index("minent"), column)}
    assert "*60.0 ± 14.2" in terminal(shown)
    assert "**60.0 ± 14.2**" in markdown(shown)
    assert r"\textbf{60.0 $\pm$ 14.2}" in latex(shown)
    assert r"\underline{50.0 $\pm$ 0.0}" in latex(shown)
    assert "pair\\_of\\_two" in latex(shown)
    numbers = comparison_table(comparison_document(comparison(), scores, [], {}), numbers=True)
    head, first, *_ = comma_separated(numbers).splitlines()
    assert head.startswith("method,seeds,mIoU,mIoU spread,")
    assert first.startswith("lsr,2,60.0,14.2,")
    assert "published mIoU: not ours, printed in their Table 1." in shown.notes
    assert shown.header[-1] == "published mIoU"
    assert shown.rows[0] is not None
    assert shown.rows[0][-1] == "46.0"


def test_std_is_never_marked_and_says_what_it_is(scores: list[ScoredRun]) -> None:
    shown = comparison_table(comparison_document(comparison(), scores, [], {}))
    column = shown.header.index("std")
    assert not {position for position in (*shown.best, *shown.second) if position[1] == column}
    assert any("lower is steadier" in note for note in shown.notes)


def gains(scores: list[ScoredRun], first: float, second: float) -> str:
    """Return the headline of two runs of two seeds, `lsr` first."""
    for score in scores:
        spread = 0.1 if score.seed else -0.1
        iou = {"lsr": first + spread, "minent": second, "target-only": 0.9}[score.run.name]
        score.result.write_text(json.dumps(result(iou)), encoding="utf-8")
    return comparison_table(comparison_document(comparison(), scores, [], {})).headline


def test_the_headline_compares_the_best_run_with_the_first(scores: list[ScoredRun]) -> None:
    assert gains(scores, 0.4, 0.7).startswith("minent is 30.0 points better than lsr (mIoU 70.0 % and 40.0 %). Most ch")
    assert gains(scores, 0.7, 0.4).startswith("minent is 30.0 points worse than lsr (mIoU 40.0 % and 70.0 %).")
    assert "as good as lsr" in gains(scores, 0.5, 0.5)
    assert "10.0 points better than lsr, no more than seeds differ by (14.2)" in gains(scores, 0.5, 0.6)


def test_without_two_runs_there_is_no_headline(scores: list[ScoredRun]) -> None:
    for score in scores[2:4]:
        score.result.unlink()
    assert comparison_table(comparison_document(comparison(), scores, [], {})).headline == ""


def test_subsets_are_explained_in_a_line_each() -> None:
    assert subsets_in_words(LABEL_SPACES["synthia16"]) == (
        "subset 13: 13 of the 16 classes, all but wall, fence, pole.",
    )
    small = LabelSpace(name="s", names=("a", "b", "c"), colors=((0, 0, 0),) * 3, subsets={"road": (1,)})
    assert subsets_in_words(small) == ("subset road: 1 of the 3 classes, b.",)


def test_a_tie_has_two_best_and_no_second(scores: list[ScoredRun]) -> None:
    third = RunSpec(name="oce")
    file = scores[0].result.parent.parent / "oce/seed-0.json"
    file.parent.mkdir()
    training = Training(name="oce", folder=file.parent / "seed-0", config=Config())
    more = [ScoredRun(run=third, seed=0, training=training, start=None, model=file, result=file)]
    kept = [score for score in scores if score.seed == 0]
    for score, iou in zip([*kept, *more], (0.5, 0.5, 0.8, 0.4), strict=True):
        score.result.write_text(json.dumps(result(iou)), encoding="utf-8")
    whole = replace(comparison(), runs=(*comparison().runs, third))
    shown = comparison_table(comparison_document(whole, [*kept, *more], [], {}))
    column = shown.header.index("mIoU")
    assert sorted(row for row, position in shown.best if position == column) == [0, 1]
    assert [row for row, position in shown.second if position == column] == []


def test_figures_and_classes_are_two_halves(scores: list[ScoredRun]) -> None:
    document = comparison_document(comparison(), scores, [], {})
    figures, classes = comparison_table(document, "figures"), comparison_table(document, "classes")
    assert (*figures.header[:-1], *classes.header[2:], "published mIoU") == comparison_table(document).header
    assert classes.header[2:] == SPACE.names
    assert classes.notes == ()
