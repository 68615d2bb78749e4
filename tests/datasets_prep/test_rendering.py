"""Rendering on Ray Data: the files are those of one process, whatever the number and order of tasks."""

import pytest

from datasets_prep import rendering
from datasets_prep.synthetic import write_dataset

SIZE = {"height": 32, "width": 48}
SCENES = {"blendedmvs": 2, "redweb": rendering._SCENES_A_TASK + 1}


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("ray_session")
def test_files_are_those_of_one_process(tmp_path):
    sets = {name: (tmp_path / "ray" / name, number) for name, number in SCENES.items()}
    assert list(rendering.rendering_datasets(sets, 7, **SIZE)) == list(range(sum(SCENES.values()) + 1))
    for name, scenes in SCENES.items():
        write_dataset(name, tmp_path / "alone" / name, scenes, seed=7, **SIZE)
    assert contents(tmp_path / "ray") == contents(tmp_path / "alone") != {}


def test_a_scene_that_is_rendered_again_is_the_same(tmp_path):
    row = {"name": "redweb", "root": str(tmp_path), "index": 3, "seed": 0, **SIZE}
    assert rendering.render(row) == {"index": 3}
    first = contents(tmp_path)
    rendering.render(row)
    assert contents(tmp_path) == first != {}
