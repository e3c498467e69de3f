import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsr_train.config import training as config
from lsr_train.network import NORMALIZATIONS, NetworkSpec
from lsr_train.network.spec import BACKBONES, OUTPUT_STRIDES, RESNETS, STEMS


@given(
    st.builds(
        NetworkSpec,
        backbone=st.sampled_from(sorted(RESNETS)),
        num_classes=st.integers(1, 255),
        width=st.floats(0.01, 4),
        output_stride=st.sampled_from(OUTPUT_STRIDES),
        stem=st.sampled_from(STEMS),
        dilations=st.lists(st.integers(1, 60), min_size=1, max_size=8).map(tuple),
        normalization=st.sampled_from(sorted(NORMALIZATIONS)),
    )
)
def test_a_spec_survives_json(spec: NetworkSpec) -> None:
    for item in (spec, replace(spec, backbone="efficientnet-lite0", width=1.0, stem="torchvision")):
        assert NetworkSpec.from_dict(json.loads(json.dumps(item.to_dict()))) == item


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backbone", "vgg16"),
        ("num_classes", 0),
        ("num_classes", 256),
        ("num_classes", True),
        ("num_classes", "19"),
        ("width", 0),
        ("width", 100),
        ("width", float("nan")),
        ("width", "1"),
        ("output_stride", 4),
        ("stem", "pytorch"),
        ("dilations", []),
        ("dilations", [0]),
        ("dilations", [6, 1.5]),
        ("dilations", [1] * 9),
        ("dilations", "6,12"),
        ("normalization", "none"),
        ("surprise", 1),
    ],
)
def test_what_is_not_allowed_is_named(key: str, value: object) -> None:
    document = {**NetworkSpec().to_dict(), key: value}
    with pytest.raises(ValueError, match=key):
        NetworkSpec.from_dict(document)


@pytest.mark.parametrize("document", [{}, {"backbone": "resnet18"}, [], None, "resnet18"])
def test_what_is_no_spec_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="a network is described by"):
        NetworkSpec.from_dict(document)  # type: ignore[arg-type]  # that is the test


def test_a_list_of_dilations_becomes_a_tuple() -> None:
    assert NetworkSpec(dilations=[6, 12]).dilations == (6, 12)  # type: ignore[arg-type]  # that is the test


@pytest.mark.parametrize(("backbone", "width", "channels"), [
    ("resnet18", 1.0, 512), ("resnet34", 1.0, 512), ("resnet50", 1.0, 2048), ("resnet101", 1.0, 2048),
    ("resnet50", 0.5, 1024), ("resnet18", 0.001, 1), ("efficientnet-lite2", 1, 1280),
])  # fmt: skip
def test_feature_channels(backbone: str, width: float, channels: int) -> None:
    assert NetworkSpec(backbone=backbone, width=width).feature_channels == channels


def test_the_configuration_offers_what_the_network_has() -> None:
    assert set(config.BACKBONE_NAMES) == set(BACKBONES)
    for stem in STEMS:
        config.NetworkConfig(stem=stem)  # type: ignore[arg-type]  # the literal's values
    for name in NORMALIZATIONS:
        config.NetworkConfig(normalization=name)  # type: ignore[arg-type]  # the literal's values


def test_a_finer_grid_whose_branches_reach_as_far_takes_the_weights() -> None:
    coarse = NetworkSpec(output_stride=16)
    fine = replace(coarse, output_stride=8, dilations=(12, 24, 36, 48))
    assert fine.is_resampled(coarse)
    assert coarse.is_resampled(fine)
    assert not replace(fine, dilations=coarse.dilations).is_resampled(coarse)
    assert not replace(fine, width=0.5).is_resampled(coarse)
