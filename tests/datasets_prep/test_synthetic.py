"""The renderer against closed forms, and the generated files against what they should hold."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from datasets_prep import synthetic
from datasets_prep.errors import UserError
from datasets_prep.formats import maps
from datasets_prep.render import cameras, solids, worlds
from datasets_prep.render.lighting import flashlight
from datasets_prep.render.raycast import Camera, Light, Quadric, Sky, Slab, Solid, World, cast
from datasets_prep.render.shading import shade
from datasets_prep.render.textures import PATTERNS, Material, albedo
from datasets_prep.writers.hrwsi import hrwsi_mask
from tests.support.files import contents

MATT = Material((0.5, 0.5, 0.5), grain=0.0, specular=0.0)
SUN = Light((0.6, 0.0, 0.8), None, (1.0, 1.0, 1.0), (0.2, 0.2, 0.2), (0.1, 0.1, 0.1))
SKY = Sky((0.2, 0.4, 0.8), (0.8, 0.8, 0.8), 0.0, (0.0, 0.0))
# Looks along the world's +x from 1.5 m above the ground.
LEVEL = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
HEIGHT, WIDTH = 60, 80


def camera_at(x=0.0, y=0.0, z=1.5, pitch=0.0) -> Camera:
    turn = Rotation.from_euler("x", pitch, degrees=True).as_matrix()
    return Camera((x, y, z), turn @ LEVEL, 0.8)


def ray_grid(camera: Camera) -> np.ndarray:
    """(3, H, W) float64 world directions whose camera z is 1, from the published intrinsics."""
    inverse = np.linalg.inv(camera.intrinsics(HEIGHT, WIDTH))
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([u, v, np.ones_like(u)]).reshape(3, -1)
    return (camera.rotation.T @ inverse @ pixels).reshape(3, HEIGHT, WIDTH)


def depth_of(solid: Solid, camera: Camera) -> np.ndarray:
    return cast(World([solid], SUN, SKY), camera, HEIGHT, WIDTH)[0]


def shaded_picture(world: World, camera: Camera) -> np.ndarray:
    return shade(world, camera, *cast(world, camera, HEIGHT, WIDTH), np.random.default_rng(0))


def quadratic_root(a, b, c):
    discriminant = b * b - a * c
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(discriminant >= 0, (-b - np.sqrt(discriminant)) / a, np.inf)


# ---- Depth in closed form
def test_ground_plane_depth_is_exact():
    camera = camera_at(pitch=20)
    ray = ray_grid(camera)
    with np.errstate(divide="ignore"):
        expected = np.where(ray[2] < 0, -1.5 / ray[2], np.inf)
    expected[expected > 590] = np.inf
    ground = solids.ground(MATT)
    depth = depth_of(ground, camera)
    inside = np.isfinite(expected) & (expected < 500)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(depth[inside], expected[inside], rtol=2e-5)
    assert np.isinf(depth[ray[2] >= 0]).all()


def test_ball_depth_is_exact():
    camera, centre, radius = camera_at(pitch=8), np.array([6.0, 0.7, 1.2]), 1.1
    ray = ray_grid(camera)
    offset = np.asarray(camera.position) - centre
    expected = quadratic_root((ray**2).sum(0), np.tensordot(offset, ray, 1), (offset**2).sum() - radius**2)
    depth = depth_of(solids.ball(tuple(centre), radius, MATT), camera)
    assert 100 < np.isfinite(expected).sum() < HEIGHT * WIDTH / 2
    assert (np.isfinite(depth) != np.isfinite(expected)).mean() < 1e-3
    both = np.isfinite(depth) & np.isfinite(expected)
    np.testing.assert_allclose(depth[both], expected[both], rtol=1e-4)


@pytest.mark.parametrize("distance", [5.0, 60.0])
def test_upright_cylinder_depth_is_exact(distance):
    camera, radius = camera_at(), 0.02 * distance
    ray = ray_grid(camera)
    expected = quadratic_root(ray[0] ** 2 + ray[1] ** 2, -distance * ray[0], distance**2 - radius**2)
    up = 1.5 + expected * ray[2]
    expected[~((up >= 0) & (up <= 100))] = np.inf
    depth = depth_of(solids.cylinder((distance, 0, 0), (distance, 0, 100), radius, MATT), camera)
    both = np.isfinite(depth) & np.isfinite(expected)
    assert both.sum() >= 60
    assert (np.isfinite(depth) != np.isfinite(expected)).mean() < 0.01
    np.testing.assert_allclose(depth[both], expected[both], rtol=1e-4)


def test_turned_box_depth_is_that_of_its_nearest_face():
    camera, yaw = camera_at(pitch=10), 0.5
    box = solids.box((7, 0.5, 0), (2, 3, 2.5), MATT, yaw=yaw)
    ray = ray_grid(camera)
    turn = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    origin = turn @ (np.asarray(camera.position) - [7, 0.5, 0])
    direction = np.tensordot(turn, ray, 1)
    low, high = np.array([-1, -1.5, 0]), np.array([1, 1.5, 2.5])
    expected = np.full((HEIGHT, WIDTH), np.inf)
    for axis in range(3):
        for side in (low[axis], high[axis]):
            t = (side - origin[axis]) / direction[axis]
            point = origin[:, None, None] + t * direction
            others = [i for i in range(3) if i != axis]
            on_face = np.all([(point[i] >= low[i]) & (point[i] <= high[i]) for i in others], axis=0)
            expected = np.where(on_face & (t > 0), np.minimum(expected, t), expected)
    depth = depth_of(box, camera)
    both = np.isfinite(depth) & np.isfinite(expected)
    assert both.sum() > 300
    assert (np.isfinite(depth) != np.isfinite(expected)).mean() < 2e-3
    np.testing.assert_allclose(depth[both], expected[both], rtol=1e-4)


@pytest.mark.parametrize("pitch", [0, 25, 80])
def test_cone_points_lie_on_the_lower_half_of_the_cone(pitch):
    tip, radius, tall = np.array([4.0, 0.3, 2.2]), 0.9, 1.7
    camera = camera_at(z=1.5 if pitch < 80 else 6.0, x=0.0 if pitch < 80 else 3.5, pitch=pitch)
    solid = solids.cone((4.0, 0.3, 0.5), radius, tall, MATT)
    depth = depth_of(solid, camera)
    hit = np.isfinite(depth)
    assert hit.sum() > 100
    points = np.asarray(camera.position)[:, None] + ray_grid(camera)[:, hit] * depth[hit]
    below = tip[2] - points[2]
    assert (below > -1e-4).all()
    assert (below < tall + 1e-4).all()
    from_axis = np.hypot(points[0] - tip[0], points[1] - tip[1])
    on_side = np.abs(from_axis - radius * below / tall) < 1e-3
    on_base = (np.abs(below - tall) < 1e-3) & (from_axis <= radius + 1e-3)
    assert (on_side | on_base).all()
    assert on_side.any()


def test_hollow_box_shows_its_inside():
    room = solids.box((0, 0, 0), (8, 6, 3), MATT, hollow=True)
    depth = depth_of(room, camera_at())
    assert depth[HEIGHT // 2, WIDTH // 2] == pytest.approx(4.0)
    assert np.isfinite(depth).all()


def test_solid_behind_the_camera_is_not_seen():
    assert np.isinf(depth_of(solids.box((-5, 0, 0), (2, 2, 2), MATT), camera_at())).all()


def test_nearer_solid_hides_the_farther_in_either_order():
    near, far = (solids.box((x, 0, 0), (1, size, 9), MATT) for x, size in ((4.0, 1.0), (9.0, 8.0)))
    first = cast(World([near, far], SUN, SKY), camera_at(), HEIGHT, WIDTH)
    second = cast(World([far, near], SUN, SKY), camera_at(), HEIGHT, WIDTH)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], np.where(second[1] < 0, -1, 1 - second[1]))
    assert first[0][HEIGHT // 2, WIDTH // 2] == pytest.approx(3.5)
    assert {0, 1} <= set(np.unique(first[1]))


def test_box_that_reaches_behind_the_camera_is_seen_whole():
    """Its corners cannot simply be projected: half of them are behind the image plane."""
    long_wall = solids.box((0, 2.0, 0), (60, 0.2, 30), MATT)
    depth = depth_of(long_wall, camera_at())
    ray = ray_grid(camera_at())
    with np.errstate(divide="ignore"):
        expected = 1.9 / ray[1]
    left = (ray[1] > 0) & (expected < 30) & (1.5 + expected * ray[2] > 0)
    assert left.mean() > 0.3
    np.testing.assert_allclose(depth[left], expected[left], rtol=1e-4)


def test_custom_solid_of_slabs_and_quadric_is_cut_by_both():
    """A ball of radius 1 cut off above 0.5."""
    slabs, ball = (Slab((0, 0, 1), -9, 0.5),), Quadric(1, 1, 1, 1)
    cut = Solid((4, 0, 1), np.eye(3), (-1, -1, -1), (1, 1, 0.5), slabs, ball, (MATT,))
    camera = camera_at(z=4, pitch=35)
    depth = depth_of(cut, camera)
    hit = np.isfinite(depth)
    height = camera.position[2] + ray_grid(camera)[2, hit] * depth[hit]
    assert height.max() == pytest.approx(1.5, abs=1e-4)
    assert (np.abs(height - 1.5) < 1e-4).mean() > 0.3


# ---- Light
def test_a_flash_is_exposed_for_what_is_in_the_middle_and_fades_with_the_square_of_distance():
    flash = flashlight(SUN, (1.0, 2.0, 1.5), 3.0)
    assert flash.lamp == (1.0, 2.0, 1.57)
    # The lamp's light is divided by 0.3 + d² / 12: 1.05 at 3 m, 3.3 at 6 m.
    assert flash.colour[0] / 1.05 == pytest.approx(0.75)
    assert flash.colour[0] / 3.3 == pytest.approx(0.2386, abs=1e-4)
    assert flash.from_above[0] == pytest.approx(0.07)


def test_box_throws_a_shadow_away_from_the_sun():
    """The sun stands at a slope of 4 : 3 over +x, so a box 3 m tall shades 2.25 m behind it."""
    ground, box = solids.ground(MATT), solids.box((10, 0, 0), (1, 1, 3), MATT)
    overhead = Camera((9, 0, 12), np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]]), 0.8)
    picture = {}
    for name, things in {"with": [ground, box], "without": [ground]}.items():
        picture[name] = shaded_picture(World(things, SUN, SKY), overhead).mean(axis=2)
    depth, owner = cast(World([ground, box], SUN, SKY), overhead, HEIGHT, WIDTH)
    points = np.asarray(overhead.position)[:, None, None] + ray_grid(overhead) * depth
    x, y = points[0], points[1]
    on_ground = owner == 0
    shaded = on_ground & (np.abs(y) < 0.35) & (x > 9.5 - 2.0) & (x < 9.4)
    lit = on_ground & (np.abs(y) < 0.35) & ((x < 9.5 - 2.6) | (x > 12.5)) & (x > 5)
    ratio = picture["with"] / picture["without"]
    assert shaded.sum() > 5
    assert lit.sum() > 5
    assert ratio[shaded].max() < 0.75
    assert ratio[lit].min() > 0.85


def test_faces_are_brighter_towards_the_light():
    light = Light((0, 1, 0), None, (1, 1, 1), (0.1,) * 3, (0.1,) * 3)
    world, camera = World([solids.ball((5, 0, 1.5), 1.5, MATT)], light, SKY), camera_at()
    _, owner = cast(world, camera, HEIGHT, WIDTH)
    picture = shaded_picture(world, camera).mean(axis=2)
    row = HEIGHT // 2
    seen = np.flatnonzero(owner[row] == 0)
    left, right = seen[len(seen) // 5], seen[-len(seen) // 5]
    assert picture[row, left] > 2 * picture[row, right]  # +y is to the left


def test_haze_draws_far_things_towards_the_horizons_colour():
    boxes = [solids.box((x, y, 0), (1, 3, 30), MATT) for x, y in ((6, 2.0), (60, -15.0))]
    camera = camera_at()
    clear, hazy = (
        shaded_picture(World(boxes, SUN, SKY, haze=haze), camera).astype(int) for haze in (0.0, 0.02)
    )
    owner = cast(World(boxes, SUN, SKY), camera, HEIGHT, WIDTH)[1]
    change = np.abs(clear - hazy).mean(axis=2)
    assert change[owner == 1].mean() > 3 * change[owner == 0].mean()


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_patterns_stay_in_range_and_fade_to_their_mean(pattern):
    rng = np.random.default_rng(1)
    u, v = rng.uniform(-40, 40, (2, 20000)).astype(np.float32)
    material = Material((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), pattern, period=1.0)
    sharp, coarse = (albedo(material, u, v, np.full_like(u, f))[0] for f in (1e-3, 40.0))
    assert sharp.min() >= -1e-3
    assert sharp.max() <= 1.001
    assert coarse.std() < 0.05
    if pattern not in ("plain", "dashes"):
        assert sharp.std() > 0.1
        assert abs(sharp.mean() - coarse.mean()) < 0.05


# ---- Scenes
def test_scene_is_the_same_for_the_same_seed_only():
    first, again, other = (synthetic.render_scene(seed, HEIGHT, WIDTH) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.depth, again.depth)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.heavy
def test_bytes_do_not_depend_on_the_number_of_threads(tmp_path):
    program = (
        "import sys, cv2; from pathlib import Path; from datasets_prep import synthetic\n"
        "cv2.setNumThreads(int(sys.argv[2]))\n"
        "synthetic.write_scene('redweb', Path(sys.argv[1]), 1, height=192, width=256)"
    )
    for threads in ("1", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", program, str(tmp_path / threads), threads]
        subprocess.run(command, check=True, env=environment)
    assert contents(tmp_path / "1") == contents(tmp_path / "4") != {}


@pytest.mark.heavy
def test_scenes_are_complete_and_varied():
    scenes = [synthetic.render_scene(seed, HEIGHT, WIDTH) for seed in range(48)]
    for scene in scenes:
        assert (scene.image.shape, scene.image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        assert scene.depth.dtype == np.float32
        np.testing.assert_array_equal(np.isinf(scene.depth), scene.sky)
        assert scene.depth.min() > 0.05
        assert scene.depth[~scene.sky].max() < 900
        assert not scene.sky.all()
        assert scene.image.std() > 8
    share = [scene.sky.mean() for scene in scenes]
    assert sum(s == 0 for s in share) >= 8
    assert sum(s > 0.1 for s in share) >= 8
    medians = [np.median(scene.depth[~scene.sky]) for scene in scenes]
    assert max(medians) > 5 * min(medians)
    assert len({scene.intrinsics[0, 0] for scene in scenes}) == len(scenes)


@pytest.mark.parametrize("kind", sorted(worlds.KINDS))
def test_every_kind_of_world_can_be_seen(kind):
    rng = np.random.default_rng(11)
    location = worlds.KINDS[kind](rng)
    depth, owner = cast(location.world, cameras.random_camera(location, rng), HEIGHT, WIDTH)
    assert np.unique(owner).size >= 5
    assert np.isfinite(depth).mean() > 0.3


def test_a_car_has_one_camera():
    scenes = [synthetic.render_scene(seed, 60, 80, ("street from a car",)) for seed in range(4)]
    assert {scene.intrinsics[0, 0] for scene in scenes} == {0.58 * 80}
    for scene in scenes:
        position = -scene.world_to_camera[:3, :3].T @ scene.world_to_camera[:3, 3]
        assert position[2] == pytest.approx(1.65)


def test_views_agree_in_depth_where_both_see_the_point():
    first, second = synthetic.render_views(4, 2, 120, 160)
    v, u = np.mgrid[0:120, 0:160]
    surface = ~first.sky
    pixels = np.stack([u[surface], v[surface], np.ones(surface.sum())])
    points = np.linalg.inv(first.intrinsics) @ pixels * first.depth[surface]
    from_first_to_second = second.world_to_camera @ np.linalg.inv(first.world_to_camera)
    moved = from_first_to_second @ np.vstack([points, np.ones(points.shape[1])])
    there = second.intrinsics @ moved[:3]
    x, y = np.round(there[:2] / there[2]).astype(int)
    inside = (moved[2] > 0.1) & (x >= 0) & (x < 160) & (y >= 0) & (y < 120)
    assert inside.mean() > 0.4
    ratio = second.depth[y[inside], x[inside]] / moved[2, inside]
    assert np.linalg.norm(first.world_to_camera[:3, 3] - second.world_to_camera[:3, 3]) > 0.01
    # Rounding to a pixel moves the point a little; occluded points differ much, and are few.
    assert np.median(np.abs(ratio - 1)) < 0.01
    assert (np.abs(ratio - 1) < 0.05).mean() > 0.7


# ---- Files
@pytest.mark.parametrize("name", sorted(set(synthetic.WRITERS) - {"kitti_161"}))
def test_scenes_written_apart_are_the_dataset(name, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    synthetic.write_dataset(name, whole, 2, seed=4, height=32, width=48)
    for index in (1, 0):
        synthetic.write_scene(name, parts, index, seed=4, height=32, width=48)
    synthetic.write_lists(name, parts, 2, seed=4)
    assert contents(whole) == contents(parts) != {}


@pytest.mark.parametrize("name", ["redweb", "tartanair"])
def test_seed_changes_every_file_but_the_constant_ones(name, tmp_path):
    for seed in (0, 1):
        synthetic.write_dataset(name, tmp_path / str(seed), 1, seed=seed, height=48, width=64)
    first, second = (set(contents(tmp_path / str(seed)).values()) for seed in (0, 1))
    assert len(first & second) <= 2
    assert len(first) >= 2


@pytest.mark.parametrize("name", ["redweb", "kitti"])
def test_traps_are_added_only_on_request(name, tmp_path):
    synthetic.write_dataset(name, tmp_path / "plain", 1, height=48, width=64)
    synthetic.write_dataset(name, tmp_path / "trapped", 1, height=48, width=64, traps=True)
    plain, trapped = (contents(tmp_path / kind) for kind in ("plain", "trapped"))
    assert plain.items() < trapped.items()


def test_hrwsi_mask_is_what_a_second_camera_does_not_see():
    scene = synthetic.render_scene(2, 24, 32)
    disparity = scene.intrinsics[0, 0] * 0.1 / scene.depth
    expected = np.zeros((24, 32), np.uint8)
    for row in range(24):
        seen_at = np.arange(32) - disparity[row]
        for column in range(32):
            hidden = any(seen_at[other] < seen_at[column] - 0.5 for other in range(column + 1, 32))
            expected[row, column] = 0 if hidden or seen_at[column] < 0 else 255
    mask = hrwsi_mask(scene)
    np.testing.assert_array_equal(mask, expected)
    assert 0 < (mask == 0).mean() < 0.5


def test_blendedmvs_camera_files(tmp_path):
    synthetic.write_scene("blendedmvs", tmp_path, 0, height=48, width=64)
    [project] = tmp_path.iterdir()
    lines = (project / "cams" / "00000001_cam.txt").read_text().splitlines()
    assert (lines[0], lines[5], lines[6], lines[10]) == ("extrinsic", "", "intrinsic", "")
    extrinsic = np.array([[float(v) for v in line.split()] for line in lines[1:5]])
    intrinsic = np.array([[float(v) for v in line.split()] for line in lines[7:10]])
    np.testing.assert_allclose(extrinsic[:3, :3] @ extrinsic[:3, :3].T, np.eye(3), atol=1e-6)
    assert extrinsic[3].tolist() == [0, 0, 0, 1]
    assert intrinsic[0, 2] == 31.5
    low, interval, count, high = (float(v) for v in lines[11].split())
    depth = maps.decode_pfm((project / "rendered_depth_maps" / "00000001.pfm").read_bytes(), "depth")
    assert low == pytest.approx(depth[depth > 0].min(), rel=1e-4)
    assert high == pytest.approx(depth.max(), rel=1e-4)
    assert (count, low + interval * 127) == (128, pytest.approx(high, rel=1e-4))
    pairs = (project / "cams" / "pair.txt").read_text().splitlines()
    assert int(pairs[0]) == synthetic.VIEWS
    assert (len(pairs), pairs[2].split()[:2]) == (1 + 2 * synthetic.VIEWS, [str(synthetic.VIEWS - 1), "1"])


@pytest.mark.heavy
def test_tartanair_depth_fits_half_precision_and_sky_is_finite(tmp_path):
    for index in range(4):
        synthetic.write_scene("tartanair", tmp_path, index, height=48, width=64)
    skies = 0
    for path in tmp_path.rglob("*_left_depth.npy"):
        depth = np.load(path)
        assert depth.dtype == np.dtype("<f4")
        np.testing.assert_array_equal(depth.astype(np.float16), depth)
        skies += int((depth == 10000).any())
        labels = np.load(path.parents[1] / "seg_left" / path.name.replace("depth", "seg"))
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels == 182, depth == 10000)
    assert skies > 0


def test_tartanair_poses_turn_camera_axes_into_north_east_down(tmp_path):
    synthetic.write_scene("tartanair", tmp_path, 0, height=48, width=64)
    [path] = tmp_path.rglob("pose_left.txt")
    poses = np.loadtxt(path)
    assert poses.shape == (synthetic.VIEWS, 7)
    seed = synthetic.scene_seed("tartanair", 0, 0)
    views = synthetic.render_views(seed, synthetic.VIEWS, 48, 64, synthetic.WRITERS["tartanair"].kinds)
    for pose, view in zip(poses, views, strict=True):
        rotation = Rotation.from_quat(pose[3:]).as_matrix()
        forward = view.world_to_camera[2, :3]
        position = -view.world_to_camera[:3, :3].T @ view.world_to_camera[:3, 3]
        np.testing.assert_allclose(rotation[:, 0] * [1, -1, -1], forward, atol=1e-5)
        np.testing.assert_allclose(rotation[:, 2] * [1, -1, -1], view.world_to_camera[1, :3], atol=1e-5)
        np.testing.assert_allclose(pose[:3] * [1, -1, -1], position, atol=1e-5)


def test_unknown_dataset_is_an_error(tmp_path):
    with pytest.raises(UserError, match="unknown dataset 'nyu'; there are: ade20k, "):
        synthetic.write_dataset("nyu", tmp_path, 1)
