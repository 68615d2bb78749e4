"""How fast the generator renders: images a second on one core at 512 × 384.

    python benchmarks/rendering.py [COUNT]

Each image is a new scene: building the world, finding a camera, casting and shading are all counted.
"""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np

from datasets_prep.synthetic import render_scene

HEIGHT, WIDTH = 384, 512


def main(count: int = 60) -> None:
    cv2.setNumThreads(1)
    render_scene(0, HEIGHT, WIDTH)  # fills the noise table and the caches
    seconds = []
    for seed in range(1, count + 1):
        start = time.process_time()
        render_scene(seed, HEIGHT, WIDTH)
        seconds.append(time.process_time() - start)
    rate, slowest = 1 / np.mean(seconds), 1000 * max(seconds)
    print(
        f"{count} scenes of {WIDTH}x{HEIGHT}: {rate:.1f} images/s a core "
        f"({1000 * np.median(seconds):.0f} ms median, {slowest:.0f} ms slowest)"
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
