import pytest

from dpt.class_names import CLASS_SETS, class_names


def test_every_class_has_one_name_of_its_own():
    sizes = {"ade20k": 150, "pascal_context_59": 59, "pascal_context_60": 60}
    assert set(sizes) == set(CLASS_SETS)
    for dataset, size in sizes.items():
        names = class_names(dataset)
        assert len(names) == len(set(names)) == size
        assert all(name == name.strip() and name for name in names)


def test_known_numbers():
    ade20k = class_names("ade20k")
    assert [ade20k[k - 1] for k in (1, 3, 5, 10, 13, 17, 90, 150)] == [
        "wall", "sky", "tree", "grass", "person", "mountain", "television", "flag",
    ]  # fmt: skip
    without, background = class_names("pascal_context_59"), class_names("pascal_context_60")
    assert background == ("background", *without)
    assert [background[k] for k in (1, 29, 35, 37, 47, 53, 59)] == [
        "aeroplane", "grass", "mountain", "person", "sky", "tree", "wood",
    ]  # fmt: skip


def test_an_unknown_dataset_is_named():
    with pytest.raises(ValueError, match=r"unknown classes of coco; known are those of ade20k, "):
        class_names("coco")
