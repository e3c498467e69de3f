import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lsr_infer.errors import InputError
from lsr_infer.io.files import write_json
from lsr_infer.labelspace import LabelSpace
from lsr_train.evaluation.result import read_result, result_document, result_table
from lsr_train.evaluation.scores import Evaluation
from lsr_train.evaluation.text_table import terminal

SPACE = LabelSpace(
    name="four",
    names=("road", "car", "pole", "train"),
    colors=((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)),
    subsets={"two": (0, 2)},
)


def evaluation(rows: list[list[int]]) -> Evaluation:
    scores = (("/somewhere/a.png", 0.5), ("/somewhere/b.png", 0.2), ("void", math.nan))
    return Evaluation(matrix=torch.tensor(rows), frames=3, void=7, frame_miou=scores)


ADAPTED = evaluation([[8, 2, 0, 0], [0, 4, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
SUPERVISED = evaluation([[10, 0, 0, 0], [0, 4, 0, 0], [60, 0, 1, 0], [0, 0, 0, 0]])


def document(scored: Evaluation = ADAPTED, **more: Any) -> dict[str, Any]:
    return result_document(
        scored, SPACE, model={"text": "net"}, data={"text": "set"}, protocol={"text": "native"}, **more
    )


def test_document_is_json_and_holds_the_figures() -> None:
    found = json.loads(json.dumps(document(worst=5), allow_nan=False))
    expected = {"road": 8 / 11, "car": 4 / 6, "pole": 1 / 2}
    assert {name: found["iou"][name] for name in expected} == pytest.approx(expected)
    assert found["iou"]["train"] is None
    assert found["empty"] == ["train"]
    assert found["miou"] == pytest.approx(sum(expected.values()) / 3)
    assert found["subsets"]["two"]["miou"] == pytest.approx((8 / 11 + 1 / 2) / 2)
    assert found["pixel_accuracy"] == pytest.approx(13 / 16)
    assert found["data"] == {"text": "set", "frames": 3, "labelled_pixels": 16, "void_pixels": 7}
    assert found["worst"] == [{"file": "b.png", "miou": 0.2}, {"file": "a.png", "miou": 0.5}]
    assert "/somewhere" not in json.dumps(found)


def test_masr_names_what_it_leaves_out_and_what_shakes_it(tmp_path: Path) -> None:
    write_json(tmp_path / "sup.json", document(SUPERVISED))
    supervised = read_result(tmp_path / "sup.json", SPACE)
    found = document(supervised=supervised)["supervised"]
    ratios = [8 / 11 / (10 / 70), 4 / 6, 1 / 2 / (1 / 61)]
    assert found["masr"] == pytest.approx(sum(ratios) / 3)
    assert found["left_out"] == ["train"]
    assert found["unstable"] == ["pole"]
    assert found["with_floor"]["masr"] == pytest.approx(sum(ratios[:2]) / 2)
    assert found["with_floor"]["left_out"] == ["pole", "train"]
    assert found["subsets"]["two"]["masr"] == pytest.approx((ratios[0] + ratios[2]) / 2)
    text = terminal(result_table(document(supervised=supervised)))
    assert "mASR leaves out train" in text
    assert "unstable: its supervised IoU is below 5.0 for pole (1.6)" in text
    assert "protocol: native" in text


def test_table_without_a_supervised_result() -> None:
    text = terminal(result_table(document()))
    assert "72.7" in text
    assert "mIoU, 4 classes" in text
    assert "mIoU, subset two" in text
    assert "neither labelled nor predicted: train" in text
    assert "mASR" not in text


def test_wrong_supervised_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sup.json"
    good = document(SUPERVISED)
    other = LabelSpace(name="o", names=("a",), colors=((0, 0, 0),))
    broken: list[Any] = [
        [1], {}, good | {"format": 2}, good | {"iou": {}}, good | {"iou": 3}, good | {"label_space": None},
        good | {"protocol": "x"}, good | {"data": None}, good | {"model": 3},
        good | {"iou": good["iou"] | {"road": "x"}}, good | {"iou": good["iou"] | {"road": 96.5}},
        good | {"label_space": other.to_dict(), "iou": {"a": 0.5}}, good | {"iou": good["iou"] | {"road": [1]}},
    ]  # fmt: skip
    texts = [json.dumps(item) for item in broken] + ["{", "", "[" * 100_000]
    for text in texts:
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            read_result(path, SPACE)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_result(missing, SPACE)
