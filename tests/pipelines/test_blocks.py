import subprocess
import sys


def test_what_makes_blocks_starts_without_pytorch() -> None:
    program = "import sys, pipelines.ray_loading; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
