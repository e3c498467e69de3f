import hashlib
import itertools
import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.toytown import CLASSES, DOMAINS, clip, render
from lsr_train.toytown.geometry import Camera, Light, MeshBuilder, Placed, Polygons, paint, place_all
from lsr_train.toytown.plan import draw_plan
from lsr_train.toytown.polygon_list import GROUND, STREET, PolygonList
from lsr_train.toytown.shadows import outlines
from lsr_train.toytown.street import BLOCK, build_block
from lsr_train.toytown.surfaces import MATERIALS, code

SIZE = {"height": 64, "width": 128}
NOON = Light(direction=(0.0, 1.0, 0.0), ambient=1.0, diffuse=0.0)
STRAIGHT = Camera(position=(1.0, 1.5, 10.0), pitch=0.05, yaw=0.1, focal=0.8)

Labels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def many() -> dict[str, list[Labels]]:
    """The labels of the first scenes of each domain."""
    return {domain: [render(domain, seed, **SIZE)[1] for seed in range(60)] for domain in DOMAINS}


@pytest.mark.parametrize("domain", sorted(DOMAINS))
@pytest.mark.parametrize(("height", "width"), [(64, 128), (61, 83), (96, 128), (16, 16)])
def test_frame_and_labels_have_the_promised_form(domain: str, height: int, width: int) -> None:
    frame, labels = render(domain, 3, height=height, width=width)
    assert frame.shape == (height, width, 3)
    assert labels.shape == (height, width)
    assert frame.dtype == labels.dtype == np.uint8
    assert labels.max() < len(CLASSES)


def test_the_domains_are_frozen() -> None:
    """A change of a domain changes every figure measured on it: measure again, write the figures down, then this."""
    assert hashlib.sha256(repr(DOMAINS).encode()).hexdigest()[:16] == "b51c01a0c2cc6300"


def test_the_classes_are_the_label_spaces() -> None:
    assert CITYSCAPES_19.names == CLASSES


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_the_same_seed_gives_the_same_bytes_whatever_came_before(domain: str) -> None:
    first = render(domain, 5, **SIZE)
    render(domain, 6, **SIZE)
    again = render(domain, 5, **SIZE)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_scenes_differ_by_seed_and_by_domain() -> None:
    labels = [render(domain, seed, **SIZE)[1] for domain in sorted(DOMAINS) for seed in (1, 2)]
    assert all((one != other).mean() > 0.02 for one, other in itertools.combinations(labels, 2))


@pytest.mark.parametrize("domain", sorted(DOMAINS))
@pytest.mark.parametrize("index", range(len(CLASSES)))
def test_every_class_is_there_to_be_learnt(domain: str, index: int, many: dict[str, list[Labels]]) -> None:
    shares = np.asarray([(labels == index).mean() for labels in many[domain]])
    assert shares.mean() > 0.001, f"{CLASSES[index]} covers {shares.mean():.3%}"
    assert (shares > 0).mean() > 0.15, f"{CLASSES[index]} is in {(shares > 0).mean():.0%} of the scenes"


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_the_layout_is_that_of_a_street(domain: str, many: dict[str, list[Labels]]) -> None:
    def rows(name: str) -> float:
        index = CLASSES.index(name)
        return float(np.mean([np.nonzero(labels == index)[0].mean() for labels in many[domain] if index in labels]))

    assert rows("sky") < rows("building") < rows("person") < rows("road")
    sides = np.mean([(labels[40:, :12] == CLASSES.index("road")).mean() for labels in many[domain]])
    middle = np.mean([(labels[40:, 50:78] == CLASSES.index("road")).mean() for labels in many[domain]])
    assert middle > sides + 0.2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_labels_lie_where_their_colours_are(domain: str, seed: int) -> None:
    frame, labels = render(domain, seed, height=128, width=256)

    def left_over(rows: int, columns: int) -> float:
        """Spread of colours within connected regions of labels that are moved against the frame."""
        moved = np.roll(labels, (rows, columns), (0, 1))[4:-4, 4:-4]
        pixels = frame[4:-4, 4:-4].astype(np.float64)
        regions = np.zeros(moved.shape, dtype=np.int64)
        for index in np.unique(moved):
            _, parts = cv2.connectedComponents((moved == index).astype(np.uint8))
            regions[parts > 0] = parts[parts > 0] + regions.max()
        counts = np.bincount(regions.ravel())
        sums = np.stack([np.bincount(regions.ravel(), pixels[:, :, channel].ravel()) for channel in range(3)])
        return float((pixels**2).sum() - (sums**2 / np.maximum(counts, 1)).sum())

    here = left_over(0, 0)
    assert all(here < left_over(*move) for move in ((0, 2), (0, -2), (2, 0), (-2, 0)))


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_a_larger_frame_shows_the_same_street(domain: str) -> None:
    small, large = render(domain, 7, height=64, width=128)[1], render(domain, 7, height=128, width=256)[1]
    assert (large[1::2, 1::2] == small).mean() > 0.93


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_a_clip_starts_with_the_rendered_frame_and_moves(domain: str) -> None:
    frames = list(clip(domain, 4, frames=3, fps=5, **SIZE))
    frame, labels = render(domain, 4, **SIZE)
    assert len(frames) == 3
    assert np.array_equal(frames[0][0], frame)
    assert np.array_equal(frames[0][1], labels)
    assert (frames[1][1] != labels).any()


def test_a_clip_goes_on_for_ever_and_changes_little_between_frames() -> None:
    late = list(clip("game", 4, frames=400, fps=2, height=16, width=32))[-1]
    assert len(np.unique(late[1])) > 3
    near = [labels for _, labels in clip("game", 4, frames=4, fps=25, **SIZE)]
    assert all((one == other).mean() > 0.85 for one, other in itertools.pairwise(near))


def test_a_block_does_not_depend_on_who_asked_before() -> None:
    plan = draw_plan(DOMAINS["camera"], 9)
    first = build_block(plan, 3).standing
    build_block(plan, 2)
    assert np.array_equal(first.vertices, build_block(plan, 3).standing.vertices)
    ground = first.layers == GROUND
    assert first.vertices[ground][:, :, 2].max() <= 4 * BLOCK + 0.2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("moon", 1, 64, 128), "game"),
        (("game", -1, 64, 128), "-1"),
        (("game", 1, 8, 128), "128x8"),
    ],
)
def test_what_cannot_be_painted_is_refused(arguments: tuple[str, int, int, int], words: str) -> None:
    domain, seed, height, width = arguments
    with pytest.raises(ValueError, match=words):
        render(domain, seed, height=height, width=width)


@pytest.mark.parametrize(("frames", "fps"), [(-1, 10), (3, 0), (3, math.nan)])
def test_a_clip_needs_frames_and_a_rate(frames: int, fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        clip("game", 1, frames=frames, fps=fps, **SIZE)


def test_the_camera_is_a_pinhole() -> None:
    points = np.random.default_rng(0).uniform((-5, -1, 15), (5, 6, 60), (50, 3))
    pixels, depths = STRAIGHT.project(points.astype(np.float32), 100, 200)
    for point, pixel, depth in zip(points, pixels, depths, strict=True):
        x, y, z = point - STRAIGHT.position
        x, z = x * math.cos(0.1) - z * math.sin(0.1), z * math.cos(0.1) + x * math.sin(0.1)
        y, z = y * math.cos(0.05) + z * math.sin(0.05), z * math.cos(0.05) - y * math.sin(0.05)
        assert depth == pytest.approx(z, rel=1e-4)
        assert pixel == pytest.approx([100 + 160 * x / z, 50 - 160 * y / z], abs=1e-2)


def _squares(depths: list[float], *, normal: tuple[float, float, float] = (0, 0, 0)) -> Polygons:
    """Squares that face the camera; the i-th is coloured and coded i + 1."""
    polygons = PolygonList(NOON)
    for index, depth in enumerate(depths):
        half = depth * 0.1 * (index + 1)
        corners = [(-half, -half, depth), (half, -half, depth), (half, half, depth), (-half, half, depth)]
        color = np.full(3, index + 1, dtype=np.float32)
        polygons.add(corners, color, index + 1, normal=normal, layer=STREET, key=depth)
    return polygons.build()


def test_colour_and_code_are_painted_as_one() -> None:
    rng = np.random.default_rng(1)
    polygons = PolygonList(NOON)
    for index in range(200):
        center = rng.uniform((-6, -2, 3), (6, 4, 80))
        corners = center + rng.uniform(-2, 2, (int(rng.integers(3, 9)), 3)) * (1, 1, 0)
        hull = cv2.convexHull(corners[:, :2].astype(np.float32))[:, 0]
        flat = np.concatenate((hull, np.full((len(hull), 1), center[2])), axis=1)
        polygons.add(flat, np.full(3, index + 1, dtype=np.float32), index + 1, layer=STREET, key=center[2])
    canvas = np.zeros((120, 200, 4), dtype=np.uint8)
    paint(canvas, polygons.build(), STRAIGHT)
    assert len(np.unique(canvas[:, :, 3])) > 20
    assert all(np.array_equal(canvas[:, :, channel], canvas[:, :, 3]) for channel in range(3))


def test_what_is_nearer_hides_what_is_farther() -> None:
    ahead = Camera(position=(0, 0, 0), pitch=0, yaw=0, focal=1)
    canvas = np.zeros((100, 100, 4), dtype=np.uint8)
    paint(canvas, _squares([10, 20, 30]), ahead)
    assert canvas[50, 50, 3] == 1
    assert canvas[50, 66, 3] == 2
    assert canvas[50, 76, 3] == 3
    assert canvas[50, 95, 3] == 0


def test_faces_turned_away_are_left_out() -> None:
    ahead = Camera(position=(0, 0, 0), pitch=0, yaw=0, focal=1)
    for normal, painted in (((0, 0, -1), True), ((0, 0, 1), False)):
        canvas = np.zeros((20, 20, 4), dtype=np.uint8)
        paint(canvas, _squares([10], normal=normal), ahead)
        assert bool(canvas.any()) is painted


def test_haze_moves_colours_but_not_codes() -> None:
    ahead = Camera(position=(0, 0, 0), pitch=0, yaw=0, focal=1)
    canvas = np.zeros((100, 100, 4), dtype=np.uint8)
    paint(canvas, _squares([10, 20]), ahead, haze=0.1, haze_color=(200, 200, 200))
    assert canvas[50, 50].tolist() == [round(math.exp(-1) + 200 * (1 - math.exp(-1)))] * 3 + [1]


def test_things_are_turned_scaled_and_moved() -> None:
    builder = MeshBuilder()
    builder.box((-1, 0, -2), (1, 3, 2), 0, code("car"))
    builder.disc((1, 0.5, 1), 0.4, "x", 1, code("car"), (1, 0, 0))
    mesh = builder.build()
    colors = np.asarray([(10, 20, 30), (40, 50, 60)], dtype=np.float32)
    things = [
        Placed(mesh=mesh, colors=colors, position=(x, 0.5, 9), yaw=yaw, scale=(-2, 1, 0.5), layer=1, key=2)
        for x, yaw in ((3, 0.0), (-4, 0.7))
    ]
    polygons = place_all(things, NOON)
    for number, thing in enumerate(things):
        for face in range(len(mesh.counts)):
            index = number * len(mesh.counts) + face
            for vertex, (x, y, z) in enumerate(mesh.vertices[face] * (-2, 1, 0.5)):
                turned = (
                    x * math.cos(thing.yaw) + z * math.sin(thing.yaw),
                    z * math.cos(thing.yaw) - x * math.sin(thing.yaw),
                )
                expected = turned[0] + thing.position[0], y + 0.5, turned[1] + 9
                assert polygons.vertices[index, vertex] == pytest.approx(expected, abs=1e-5)
            assert polygons.colors[index] == pytest.approx(colors[mesh.slots[face]])


def test_normals_of_a_box_point_outwards() -> None:
    builder = MeshBuilder()
    builder.box((-1, -1, -1), (1, 1, 1), 0, 0)
    mesh = builder.build()
    centers = np.stack([face[:count].mean(axis=0) for face, count in zip(mesh.vertices, mesh.counts, strict=True)])
    assert np.allclose(centers, mesh.normals)


@pytest.mark.parametrize("sun", [(0.5, 0.7, 0.5), (-0.5, 0.7, 0.5), (0.5, 0.7, -0.5), (-0.5, 0.7, -0.5), (0, 1, 0)])
def test_a_shadow_is_the_hull_of_foot_and_top(sun: tuple[float, float, float]) -> None:
    light = Light(direction=sun, ambient=1, diffuse=0)
    x, z, half, length, height = 3.0, 20.0, 1.0, 2.5, 4.0
    shape = outlines([(x, z, half, length, height)], [], light, overcast=False)[0][0]
    foot = [(x + a * half, z + b * length) for a, b in itertools.product((-1, 1), (-1, 1))]
    top = [(px - sun[0] / sun[1] * height, pz - sun[2] / sun[1] * height) for px, pz in foot]
    hull = cv2.convexHull(np.asarray(foot + top, dtype=np.float32))
    assert cv2.contourArea(shape) == pytest.approx(cv2.contourArea(hull), rel=1e-4)
    assert cv2.contourArea(cv2.convexHull(shape)) == pytest.approx(cv2.contourArea(hull), rel=1e-4)


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("label", CLASSES)
def test_class_and_material_share_a_byte(label: str, material: str) -> None:
    packed = code(label, material)
    assert 0 <= packed <= 255
    assert CLASSES[packed & 31] == label
    assert MATERIALS[packed >> 5] == material
