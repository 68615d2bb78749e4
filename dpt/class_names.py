"""What the classes of the segmentation sets are called, in the order of their numbers.

ADE20K (SceneParse150): the first of the names that the set gives each class. Pascal Context: the 59 frequent
classes, with or without the background as class 0.
"""

from functools import cache
from importlib.resources import files

_LISTS = {
    "ade20k": ("ade20k", ()),
    "pascal_context_59": ("pascal_context", ()),
    "pascal_context_60": ("pascal_context", ("background",)),
}
"""Dataset → the file in `class_lists/` that holds its names, and the names that come before those."""

CLASS_SETS = tuple(_LISTS)


@cache
def class_names(dataset: str) -> tuple[str, ...]:
    """The names of a dataset's classes, of class 0 first.

    Raises:
        ValueError: for a dataset whose classes are not known, listing those that are.
    """
    if dataset not in _LISTS:
        raise ValueError(f"the classes of {dataset} are not known; those of {', '.join(_LISTS)} are")
    file, first = _LISTS[dataset]
    text = (files("dpt") / "class_lists" / f"{file}.txt").read_text(encoding="utf-8")
    return (*first, *text.split("\n")[:-1])
