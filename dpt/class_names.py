"""Class names of the segmentation datasets, by class index.

ADE20K (SceneParse150): the first of the names that the dataset gives each class. Pascal Context: the 59
frequent classes, with or without the background as class 0.
"""

from functools import cache
from importlib.resources import files

# Dataset → the file in `class_lists/` with its names, and the names that precede those in the file.
_LISTS = {
    "ade20k": ("ade20k", ()),
    "pascal_context_59": ("pascal_context", ()),
    "pascal_context_60": ("pascal_context", ("background",)),
}
CLASS_SETS = tuple(_LISTS)


@cache
def class_names(dataset: str) -> tuple[str, ...]:
    """The class names of `dataset`, starting with class 0.

    Raises ValueError for an unknown dataset, listing the known ones.
    """
    if dataset not in _LISTS:
        raise ValueError(f"unknown classes of {dataset}; known are those of {', '.join(_LISTS)}")
    file, first = _LISTS[dataset]
    text = (files("dpt") / "class_lists" / f"{file}.txt").read_text(encoding="utf-8")
    return (*first, *text.split("\n")[:-1])
