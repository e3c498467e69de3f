"""The Manifest's round trip, its sizes, and everything it refuses."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest import OUTPUTS, PRECISIONS, RESIZE, RUNTIMES, Manifest
from lsr_infer.manifest.records import FLAVOURS, EngineFacts, Parity, Quantization, TeacherFacts
from lsr_infer.pipeline.options import WorkingSize
from tests.lsr_infer.onnxfile import SPACE, manifest

finite = st.floats(allow_nan=False, allow_infinity=False)
parities = st.builds(
    Parity,
    reference=st.text(),
    frames_from=st.text(),
    frames=st.integers(0, 10**6),
    pixels=st.integers(0, 10**12),
    agreement=finite,
    clear_agreement=st.none() | finite,
    max_logit_difference=finite,
    mean_logit_difference=finite,
    class_agreement=st.dictionaries(st.text(), finite, max_size=3),
    miou_reference=st.none() | finite,
    miou=st.none() | finite,
    class_iou_difference=st.dictionaries(st.text(), finite, max_size=3),
)
quantizations = st.builds(
    Quantization,
    scheme=st.text(),
    calibration=st.text(),
    calibrated_on=st.text(),
    frames=st.integers(0, 10**6),
    candidates=st.dictionaries(st.text(), finite, max_size=3),
    in_float=st.lists(st.text(), max_size=3).map(tuple),
)
shape = st.tuples(*[st.integers(1, 64)] * 3)
engines = st.builds(
    EngineFacts,
    flavour=st.sampled_from(FLAVOURS),
    version=st.text(),
    gpu=st.text(),
    compute_capability=st.none() | st.tuples(st.integers(0, 20), st.integers(0, 9)),
    targets=st.lists(st.text(), max_size=3).map(tuple),
    hardware_compatible=st.text(),
    version_compatible=st.booleans(),
    platform=st.text(),
    shapes=st.tuples(shape, shape, shape).map(
        lambda three: tuple(zip(*map(sorted, zip(*three, strict=True)), strict=True))
    ),
    types=st.dictionaries(st.text(), st.integers(0, 999), max_size=3),
    types_checked=st.sampled_from(("engine", "network")),
    sha256=st.text(),
    onnx_sha256=st.text(),
    parity=st.none() | parities,
)
color = st.tuples(*[st.integers(0, 255)] * 3)
spaces = st.lists(st.text(), min_size=1, max_size=5, unique=True).flatmap(
    lambda names: st.builds(
        LabelSpace, name=st.text(), names=st.just(tuple(names)), colors=st.tuples(*[color] * len(names))
    )
)
manifests = st.builds(
    Manifest,
    label_space=spaces,
    output=st.sampled_from(OUTPUTS),
    height=st.integers(1, 16384),
    width=st.integers(1, 16384),
    fixed_size=st.booleans(),
    fixed_batch=st.none() | st.integers(1, 1024),
    multiple=st.integers(1, 256),
    resize=st.sampled_from(RESIZE),
    precision=st.sampled_from(PRECISIONS),
    normalization=st.text(),
    checkpoint=st.text(),
    method=st.text(),
    scores=st.dictionaries(st.text(), finite, max_size=3),
    teacher=st.none()
    | st.builds(
        TeacherFacts,
        sha256=st.text(),
        method=st.text(),
        step=st.integers(0, 10**6),
        scores=st.dictionaries(st.text(), finite, max_size=3),
    ),
    licence=st.text(),
    intended_use=st.text(),
    opset=st.integers(0, 99),
    exporter=st.text(),
    parity=st.none() | parities,
    runtime=st.sampled_from(RUNTIMES),
    quantization=st.none() | quantizations,
    choices=st.lists(st.text(), max_size=3).map(tuple),
    engine=st.none() | engines,
)


@settings(deadline=None)
@given(manifests)
def test_round_trip(document: Manifest) -> None:
    assert Manifest.from_json(document.to_json()) == document


@settings(deadline=None, max_examples=200)
@given(
    st.text()
    | st.recursive(finite | st.text() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        json.dumps
    )
)
def test_noise_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        Manifest.from_json(text)


def places(document: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of a document and of the objects in it."""
    if not isinstance(document, dict):
        return []
    here = [(*path, key) for key in document]
    return here + [place for key, value in document.items() for place in places(value, (*path, key))]


COMPARED = Parity(
    reference="checkpoint", frames_from="4 frames", frames=4, pixels=9, agreement=1.0, clear_agreement=None,
    max_logit_difference=0.1, mean_logit_difference=0.01,
)  # fmt: skip
FULL = manifest(
    scores={"miou": 0.4},
    teacher=TeacherFacts(sha256="0" * 64, method="lsr-st", step=9, scores={"miou": 0.5}),
    parity=COMPARED,
    quantization=Quantization(
        scheme="S8S8", calibration="entropy", calibrated_on="8 frames", frames=8, candidates={"entropy": 0.9}
    ),
    engine=EngineFacts(flavour="rtx", version="1.7", shapes=((1, 8, 8), (1, 8, 8), (2, 16, 16)), parity=COMPARED),
)
OPTIONAL = {
    "fixed_batch", "parity", "subsets", "clear_agreement", "clear_share", "proved_on",
    "miou", "miou_reference", "scores", "quantization", "engine", "teacher",
    "compute_capability", "class_iou_difference", "digest",
}  # fmt: skip


@pytest.mark.parametrize("place", places(json.loads(FULL.to_json())), ids=".".join)
@pytest.mark.parametrize(
    "value", [[], {"x": []}, [[1, 2]], 10**400, "nan", 0.5, True, "\ud800", ["\ud800"], {"\ud800": 1}]
)
def test_a_value_of_a_wrong_type_is_an_input_error_or_read_as_what_it_is(place: tuple[str, ...], value: object) -> None:
    document = json.loads(FULL.to_json())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with contextlib.suppress(InputError):  # and nothing else
        read = Manifest.from_json(json.dumps(document))
        assert Manifest.from_json(read.to_json()) == read
        read.to_json().encode()
    del inner[place[-1]]
    if place[-1] not in OPTIONAL and "candidates" not in place[:-1]:
        with pytest.raises(InputError):
            Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        {"output": "features"},
        {"precision": "fp8"},
        {"upsampling": "nearest"},
        {"resize": "crop"},
        {"height": 0},
        {"width": 16385},
        {"multiple": 0},
        {"fixed_batch": 0},
        {"scores": {"miou": float("nan")}},
    ],
)
def test_values_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Manifest"):
        manifest(**change)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (("input", "height"), "x", "Manifest: input.height: expected `int`, got `str`."),
        (("engine", "shapes", "min"), [1, 2], "Manifest: engine.shapes: min: expected `array` of length 3."),
        (("engine", "shapes"), None, "Manifest: engine.shapes: expected `object`, got `null`."),
        (("parity", "agreement"), None, "Manifest: parity: agreement: expected `float`, got `null`."),
        (("engine", "parity"), {}, "Manifest: engine.parity: object missing required field `reference`."),
        (("input",), {}, "Manifest: input: object missing required field `name`."),
        (("format",), 4, "Manifest: its format is 4, this version reads up to 3."),
    ],
)
def test_a_refusal_names_the_member_in_one_sentence(place: tuple[str, ...], value: object, sentence: str) -> None:
    document = json.loads(FULL.to_json())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(InputError) as caught:
        Manifest.from_json(json.dumps(document))
    assert str(caught.value).startswith(sentence)


def test_the_format_says_whether_there_is_a_digest() -> None:
    sealed = manifest(digest=f"sha256:{'5' * 64}")
    document = json.loads(sealed.to_json())
    assert (json.loads(manifest().to_json())["format"], document["format"]) == (2, 3)
    assert Manifest.from_json(json.dumps(document | {"format": 2})) == sealed
    for lost in ({"digest": ""}, {"digest": None}, {"digesu": document.pop("digest")}):
        with pytest.raises(InputError, match="its digest is missing"):
            Manifest.from_json(json.dumps(document | lost))


def test_a_document_of_the_first_format_is_read() -> None:
    document = json.loads(manifest().to_json()) | {"format": 1}
    for member in ("runtime", "choices", "quantization", "engine", "teacher"):
        del document[member]
    assert Manifest.from_json(json.dumps(document)) == manifest()


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
@pytest.mark.parametrize("place", places(json.loads(FULL.to_json())), ids=".".join)
def test_half_a_surrogate_pair_is_an_input_error_wherever_it_stands(place: tuple[str, ...], text: str) -> None:
    document = json.loads(FULL.to_json())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = text
    with pytest.raises(InputError) as caught:
        Manifest.from_json(json.dumps(document))
    str(caught.value).encode()


@pytest.mark.parametrize("color", ["Infinity", "1e400", "1.5", "true", '"7"', "256", "-1", "null"])
def test_a_colour_that_is_none(color: str) -> None:
    text = FULL.to_json().replace("[0, 0, 255]", f"[0, 0, {color}]")
    assert color in text
    with pytest.raises(InputError):
        Manifest.from_json(text)
    with pytest.raises(InputError):
        LabelSpace.from_dict(json.loads(text)["label_space"])


def test_an_engine_takes_no_more_than_a_graph_may() -> None:
    for most in ((2, 16, 16385), (1025, 16, 16)):
        assert FULL.engine is not None
        with pytest.raises(InputError, match="engine takes up to"):
            manifest(engine=replace(FULL.engine, shapes=((1, 8, 8), (1, 8, 8), most)))


@given(
    st.builds(
        manifest,
        height=st.integers(1, 16384),
        width=st.integers(1, 16384),
        multiple=st.integers(1, 256),
        resize=st.sampled_from(RESIZE),
        fixed_size=st.booleans(),
        engine=st.none() | engines,
    ),
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.sampled_from([1, 2, 7]),
)
def test_sizes_that_are_chosen_for_a_frame_are_taken(document: Manifest, height: int, width: int, stride: int) -> None:
    rows, columns = document.working_size(height, width)
    low, high = (1, 1), (16384, 16384)
    if document.engine is not None and not document.fixed_size:
        (_, *low), _, (_, *high) = document.engine.shapes
    assert low[0] <= rows <= high[0]
    assert low[1] <= columns <= high[1]
    if document.engine is None:  # an engine may begin or end between two multiples
        document.check_size(rows, columns)
    size: tuple[int, int] | None = None
    with contextlib.suppress(InputError):  # and no usage error: only this frame is at fault
        size = WorkingSize(stride=stride).of(document, height, width)
    if size is not None:
        document.check_size(*size)


@pytest.mark.parametrize(
    ("changes", "size", "said"),
    [
        ({}, (60, 96), "multiples of 8, such as 96x64"),
        ({}, (0, 96), "such as 96x8"),
        ({}, (64, 16392), "to 16384x16384"),
        ({}, (99999, 99999), "such as 16384x16384"),
        ({"fixed_size": True}, (64, 104), "takes only 96x64"),
        ({"engine": replace(FULL.engine, shapes=((1, 64, 96), (1, 64, 96), (1, 64, 192)))}, (64, 200), "96x64 to 192x"),
    ],
)
def test_a_size_that_is_not_taken_is_the_users_mistake(
    changes: dict[str, Any], size: tuple[int, int], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        manifest(**changes).check_size(*size)


def test_a_frame_too_large_for_a_stride_is_that_frames_fault() -> None:
    working = WorkingSize(stride=1)
    assert working.of(manifest(), 720, 1279) == (720, 1280)
    with pytest.raises(InputError, match=r"frame of 30000x100 at --stride 1.*to 16384x16384.*another --stride"):
        working.of(manifest(), 100, 30_000)


def test_working_sizes() -> None:
    free = manifest(height=240, width=320, multiple=16)
    assert free.working_size(720, 960) == (240, 320)  # the training's own aspect ratio
    assert free.working_size(720, 1280) == (208, 368)
    assert free.working_size(1280, 720) == (368, 208)
    assert free.working_size(1, 1) == (272, 272)
    rows, columns = free.working_size(1, 100_000)
    assert rows == 16
    assert columns <= 16384
    assert manifest(height=240, width=320, resize="stretch").working_size(720, 1280) == (240, 320)
    assert manifest(height=240, width=320, fixed_size=True).working_size(720, 1280) == (240, 320)


def test_no_document_names_a_path() -> None:
    text = FULL.to_json()
    assert "/" not in text
    assert Manifest.from_json(text).label_space == SPACE


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_of_json_is_an_input_error(value: str) -> None:
    text = FULL.to_json().replace('"agreement": 1.0', f'"agreement": {value}')
    assert value in text
    with pytest.raises(InputError, match="no JSON"):
        Manifest.from_json(text)
