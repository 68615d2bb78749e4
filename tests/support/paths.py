"""The repository, and the real sample files that may lie beside it; tests that need these skip without them."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY.parent / "shared" / "samples"
