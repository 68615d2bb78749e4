"""What Hugging Face's `datasets` must be told of a version's folder, so that its images decode by themselves.

`load_dataset(FOLDER)` reads it from `CARD_NAME`. It would also read features in the schema of the Parquet
files, but these only where an image is a struct of bytes and path; ours are plain bytes, for all readers.
"""

import pyarrow as pa
import yaml

CARD_NAME = ".huggingface.yaml"
_PICTURES = {"image", "label"}
_TYPES = {pa.float64(): "float64", pa.float32(): "float32"}
"""Where the name in `datasets` is not Arrow's."""


def card(schema: pa.Schema) -> str:
    """The content of the file `CARD_NAME` for shards of a `schema`."""
    info = {"dataset_info": {"features": [_feature(field) for field in schema]}}
    return str(yaml.safe_dump(info, sort_keys=False))


def _feature(field: pa.Field) -> dict[str, object]:
    if pa.types.is_struct(field.type):
        return {"name": field.name, "struct": [_feature(child) for child in field.type.fields]}
    kind = "image" if field.name in _PICTURES else _TYPES.get(field.type, str(field.type))
    return {"name": field.name, "dtype": kind}
