import subprocess
import sys


def test_what_makes_blocks_starts_without_pytorch() -> None:
    modules = "pipelines.loading.on_ray, pipelines.loading.segmentation_crops"
    program = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
