"""JSON files with a digest of what they say: a flipped bit in a number leaves JSON that parses as before."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from datasets_prep.errors import Note, UserError
from datasets_prep.storage.folder import Folder

SEAL = "sha256"
"""Key of the digest, of the sorted JSON of everything else."""


class DamagedFile(UserError):
    """A file that does not hold what was written to it; the message names it."""


def sealed(content: Mapping[str, Any]) -> str:
    """The JSON text of `content`, which has no key `SEAL`, with its digest."""
    plain = json.loads(json.dumps(content))  # tuples become lists, so that the digest is that of what is read
    return json.dumps({**plain, SEAL: seal_of(plain)}, indent=1, sort_keys=True) + "\n"


def seal_of(content: Any) -> str:
    """Digest of `content`, of JSON's types: SHA-256, in hexadecimal, of its sorted JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def unsealed(text: str | bytes, where: str) -> dict[str, Any]:
    """The content of a sealed `text`, without the digest.

    Raises DamagedFile, which names the file as `where`, unless it is what was sealed.
    """
    try:
        return checked(json.loads(text, object_pairs_hook=_without_doubles), where)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"{where} is damaged: {' '.join(str(error).split()):.200}") from error


def checked(content: Any, where: str) -> dict[str, Any]:
    """The `content` of a sealed file, as parsed, without the digest.

    Raises DamagedFile, which names the file as `where`, unless it is what was sealed.
    """
    if not isinstance(content, dict) or SEAL not in content:
        raise DamagedFile(f"{where} is damaged: it has no digest")
    plain = {key: value for key, value in content.items() if key != SEAL}
    try:
        intact = content[SEAL] == seal_of(plain)
    except (TypeError, ValueError, RecursionError):  # what no JSON has, such as a date of YAML
        intact = False
    if not intact:
        raise DamagedFile(f"{where} is damaged: its content differs from its digest")
    return plain


def _note(line: str) -> None:
    warnings.warn(line, Note, stacklevel=3)


def intact(folder: Folder, name: str, say: Callable[[str], None] = _note) -> dict[str, Any] | None:
    """The content of the sealed file `name` in a `folder`, which can be made again.

    None if it is missing, or damaged; of that `say` gets a line.
    """
    if not folder.exists(name):
        return None
    try:
        return unsealed(folder.read_bytes(name), folder.path_of(name))
    except DamagedFile as error:
        say(f"{error}; it is made again")
        return None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content
