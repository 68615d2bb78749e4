"""A small rendered dataset in each native layout, defects included, written once a run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datasets_prep import synthetic
from datasets_prep.render.scenes import Scene, render_views
from datasets_prep.storage.folder import Folder
from datasets_prep.writers import base

HEIGHT, WIDTH = 72, 96


@dataclass(frozen=True)
class Tree:
    """A written dataset."""

    root: Folder
    traps: dict[str, str]  # sample id → defect, of the samples that are not good
    scenes: list[list[Scene]]  # the renderer's output by scene, as the writer got it


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Tree]:
    """Write a dataset of so many scenes; the same call twice gives the same tree."""
    trees: dict[tuple[str, int], Tree] = {}

    def write(name: str, scenes: int) -> Tree:
        if (name, scenes) not in trees:
            path: Path = tmp_path_factory.mktemp(name)
            rendered: list[list[Scene]] = []
            with pytest.MonkeyPatch.context() as patch:
                _record(patch, rendered)
                synthetic.write_dataset(name, path, scenes, height=HEIGHT, width=WIDTH)
            traps = synthetic.write_traps(name, path, height=HEIGHT, width=WIDTH)
            trees[name, scenes] = Tree(Folder(path), traps, rendered)
        return trees[name, scenes]

    return write


def _record(patch: pytest.MonkeyPatch, rendered: list[list[Scene]]) -> None:
    def record_views(*arguments: Any) -> list[Scene]:
        rendered.append(render_views(*arguments))
        return rendered[-1]

    patch.setattr(base, "render_views", record_views)
