"""The repository, and the real sample files that may lie beside it; without them their tests skip."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY.parent / "shared" / "samples"
