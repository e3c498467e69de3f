import hashlib
import itertools
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.toytown import CLASSES, DOMAINS, clip, render
from lsr_train.toytown.domains import Domain, Palette
from lsr_train.toytown.geometry import (
    DISC,
    Camera,
    Floats,
    Light,
    Mesh,
    MeshBuilder,
    Placed,
    Polygons,
    paint,
    place,
    shadows,
)
from lsr_train.toytown.objects import MATERIALS, PHASES, code, person, vehicle
from lsr_train.toytown.street import BLOCK, Street, build_block, choose, spread_out

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
    assert hashlib.sha256(repr(DOMAINS).encode()).hexdigest()[:16] == "17a306027923316b"


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
    street = Street(DOMAINS["camera"], 9)
    first = build_block(street, 3)
    build_block(street, 2)
    assert np.array_equal(first.standing.vertices, build_block(street, 3).standing.vertices)
    assert first.ground.vertices[:, :, 2].max() <= 4 * BLOCK + 0.2


def test_names_are_drawn_by_weight_and_places_spread_out() -> None:
    rng = np.random.default_rng(2)
    names = [choose(rng, {"rare": 1, "never": 0, "often": 3}) for _ in range(2000)]
    assert names.count("often") == pytest.approx(1500, abs=80)
    assert "never" not in names
    places = [spread_out(rng, (10, 60), 8, gap=3) for _ in range(500)]
    assert np.mean([len(some) for some in places]) == pytest.approx(4, abs=0.3)
    assert all(some[0] >= 10 and some[-1] <= 60 and (np.diff(some) > 3).all() for some in places if some)


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=list(DOMAINS))
def test_colours_are_near_one_of_the_choices(domain: Domain) -> None:
    choices = np.asarray([tuple(bytes.fromhex(text))[::-1] for text in domain.colors["paints"].split()], dtype=float)
    drawn = Palette(domain, np.random.default_rng(3)).pick(*["paints"] * 400)
    apart = np.abs(drawn[:, None] - choices).max(axis=2)
    assert apart.min(axis=1).max() <= domain.spread + 255 * domain.brightness
    assert len(np.unique(apart.argmin(axis=1))) == len(choices)


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


def _flat(outline: Floats, number: int, depth: float, *, normal: tuple[float, float, float] = (0, 0, 0)) -> Placed:
    """A polygon [n,2] that faces the camera and is coloured and coded by its number."""
    builder = MeshBuilder()
    builder.add(np.insert(outline, 2, 0, axis=1), 0, number, normal)
    return Placed(builder.build(), np.full((1, 3), number, dtype=np.float32), (0, 0, depth))


def _squares(depths: list[float], *, normal: tuple[float, float, float] = (0, 0, 0)) -> Polygons:
    """Squares that face the camera; the i-th is coloured and coded i + 1."""
    square = np.asarray([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float32)
    things = [
        _flat(square * depth * 0.1 * number, number, depth, normal=normal) for number, depth in enumerate(depths, 1)
    ]
    return place(things, NOON)


def test_colour_and_code_are_painted_as_one() -> None:
    rng = np.random.default_rng(1)
    things = []
    for number in range(1, 201):
        center = rng.uniform((-6, -2, 3), (6, 4, 80))
        corners = center[:2] + rng.uniform(-2, 2, (int(rng.integers(3, 9)), 2))
        things.append(_flat(cv2.convexHull(corners.astype(np.float32))[:, 0], number, center[2]))
    canvas = np.zeros((120, 200, 4), dtype=np.uint8)
    paint(canvas, place(things, NOON), STRAIGHT)
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


def test_what_is_told_to_stand_behind_is_painted_first() -> None:
    ahead = Camera(position=(0, 0, 0), pitch=0, yaw=0, focal=1)
    square = np.asarray([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float32)
    for behind, seen in ((0, 1), (20, 2)):
        canvas = np.zeros((20, 20, 4), dtype=np.uint8)
        paint(canvas, place([replace(_flat(square, 1, 10), behind=behind), _flat(square * 2, 2, 20)], NOON), ahead)
        assert canvas[10, 10, 3] == seen


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
    builder.draw([(DISC, 1, 1, 0.5, 0.4, 0.4)], code("car"))
    mesh = builder.build()
    colors = np.asarray([(10, 20, 30), (40, 50, 60)], dtype=np.float32)
    things = [Placed(mesh, colors, (x, 0.5, 9), yaw=yaw, scale=(-2, 1, 0.5)) for x, yaw in ((3, 0.0), (-4, 0.7))]
    polygons = place(things, NOON)
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


@pytest.mark.parametrize("mirror", [-1, 1])
def test_normals_of_a_box_point_outwards(mirror: float) -> None:
    builder = MeshBuilder()
    builder.box((-1, -1, -1), (1, 1, 1), 0, 0)
    color = np.zeros((1, 3), dtype=np.float32)
    box = place([Placed(builder.build(), color, (0, 0, 0), scale=(mirror, 1, 1), yaw=0.3)], NOON)
    centers = np.stack([face[:count].mean(axis=0) for face, count in zip(box.vertices, box.counts, strict=True)])
    assert np.allclose(centers, box.normals, atol=1e-6)


def _mesh() -> Mesh:
    builder = MeshBuilder()
    builder.draw([(DISC, 0, 0, 1, 1, 1)], 0)
    return builder.build()


def test_a_thing_moves_and_changes_its_phase() -> None:
    phases = (_mesh(), _mesh(), _mesh())
    thing = Placed(phases[0], np.zeros((1, 3), np.float32), (1, 2, 3), velocity=(4, -5), phases=phases, rate=2)
    later = thing.at(0.6)
    assert later.position == pytest.approx((3.4, 2, 0))
    assert later.mesh is phases[1]


@pytest.mark.parametrize("sun", [(0.5, 0.7, 0.5), (-0.5, 0.7, 0.5), (0.5, 0.7, -0.5), (-0.5, 0.7, -0.5), (0, 1, 0)])
def test_a_shadow_is_the_hull_of_foot_and_top(sun: tuple[float, float, float]) -> None:
    light = Light(direction=sun, ambient=1, diffuse=0)
    x, z, half, length, low, high = 3.0, 20.0, 1.0, 2.5, 0.5, 4.0
    thing = Placed(_mesh(), np.zeros((1, 3), np.float32), (x, 0, z), shadow=(half, length, low, high))
    shape = shadows([thing], light, overcast=False)[0]
    below = [(x + a * half, z + b * length) for a, b in itertools.product((-1, 1), (-1, 1))]
    ends = [(px - sun[0] / sun[1] * y, pz - sun[2] / sun[1] * y) for px, pz in below for y in (low, high)]
    hull = cv2.convexHull(np.asarray(ends, dtype=np.float32))
    assert cv2.contourArea(shape) == pytest.approx(cv2.contourArea(hull), rel=1e-4)
    assert cv2.contourArea(cv2.convexHull(shape)) == pytest.approx(cv2.contourArea(hull), rel=1e-4)
    straight_down = cv2.contourArea(shadows([thing], light, overcast=True)[0])
    assert straight_down == pytest.approx(4 * half * length, rel=1e-4)


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("label", CLASSES)
def test_class_and_material_share_a_byte(label: str, material: str) -> None:
    packed = code(label, material)
    assert 0 <= packed <= 255
    assert CLASSES[packed & 31] == label
    assert MATERIALS[packed >> 5] == material


@pytest.mark.parametrize("kind", ["car", "truck", "bus", "train"])
def test_a_vehicle_is_of_its_class_and_the_same_on_both_sides(kind: str) -> None:
    mesh = vehicle(kind, {"car": "sedan", "truck": "box"}.get(kind, ""))
    assert set(mesh.codes) == {code(kind)}
    across = mesh.vertices[:, :, 0]
    assert across.min() == pytest.approx(-across.max())
    assert mesh.vertices[:, :, 1].min() >= 0
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1)


@pytest.mark.parametrize("ride", ["", "bicycle", "motorcycle"])
@pytest.mark.parametrize("view", ["side", "front", "back"])
def test_somebody_moves_their_limbs_on_foot_and_on_a_bicycle(ride: str, view: str) -> None:
    phases = person(ride, view)
    assert len(phases) == PHASES
    assert set(phases[0].codes) == ({code(ride), code("rider")} if ride else {code("person")})
    moves = any((phases[0].vertices != other.vertices).any() for other in phases[1:])
    assert moves is (ride != "motorcycle")
