"""Crops of published evaluations: KITTI's benchmark crop and Garg crop, NYUv2's Eigen crop."""

KB_HEIGHT, KB_WIDTH = 352, 1216
"""Size in pixels of the images of KITTI's depth benchmark: the lowest rows and the middle columns."""

EIGEN_ROWS, EIGEN_COLUMNS = (45, 471), (41, 601)
"""First and last (exclusive) of NYUv2's 640x480 images inside their white border (Eigen et al. 2014)."""

GARG_ROWS, GARG_COLUMNS = (0.40810811, 0.99189189), (0.03594771, 0.96405229)
"""Fractions of height and width that KITTI's laser scanner covers (Garg et al. 2016)."""


def kb_window(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of KITTI's benchmark crop of a `height` × `width` image; small ones are kept whole."""
    top, left = max(0, height - KB_HEIGHT), max(0, (width - KB_WIDTH) // 2)
    return slice(top, height), slice(left, min(width, left + KB_WIDTH))


def region_window(region: str, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of `region` in a `height` × `width` image: where ground truth counts.

    Raises ValueError if the region is not defined for this size.
    """
    if region == "all":
        return slice(0, height), slice(0, width)
    if region == "garg":
        rows, columns = ([int(share * n) for share in shares] for shares, n in
                         ((GARG_ROWS, height), (GARG_COLUMNS, width)))  # fmt: skip
        return slice(*rows), slice(*columns)
    if (height, width) != (480, 640):
        raise ValueError(f"the Eigen crop is defined for images of 640x480, not {width}x{height}")
    return slice(*EIGEN_ROWS), slice(*EIGEN_COLUMNS)
