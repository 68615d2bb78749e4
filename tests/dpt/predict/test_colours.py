import numpy as np
import pytest

from dpt.predict.colours import class_colours, overlay, paint_classes, voc_colour_map


def test_the_first_colours_are_pascal_vocs():
    published = "000000 800000 008000 808000 000080 800080 008080"
    assert voc_colour_map()[:7].tolist() == [list(bytes.fromhex(colour)) for colour in published.split()]
    assert voc_colour_map()[20].tolist() == [0, 64, 128]  # tv monitor
    assert voc_colour_map()[255].tolist() == [224, 224, 192]  # the border of objects


def test_every_class_has_a_colour_of_its_own_and_no_label_is_black():
    colours = class_colours()
    assert len(np.unique(colours, axis=0)) == 256
    assert colours[255].tolist() == [0, 0, 0]
    labels = np.array([[0, 149, 255]], np.uint8)
    np.testing.assert_array_equal(paint_classes(labels)[0], colours[[0, 149, 255]])


def test_an_overlay_mixes_labelled_pixels_only():
    image = np.full((2, 3, 3), 100, np.uint8)
    labels = np.array([[0, 1, 255], [255, 255, 2]], np.uint8)
    mixed = overlay(image, labels, 0.25)
    np.testing.assert_array_equal(mixed[labels == 255], 100)
    np.testing.assert_array_equal(mixed[0, 0], np.round(0.75 * 100 + 0.25 * class_colours()[0]))
    np.testing.assert_array_equal(overlay(image, labels, 0.0), image)
    with pytest.raises(ValueError, match="pixels"):
        overlay(image, labels[:1])
