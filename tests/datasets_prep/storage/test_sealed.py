import hashlib
import json
import random

import pytest

from datasets_prep.errors import Note
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.sealed import DamagedFile, intact, sealed, unsealed

CONTENT = {"step": 3600, "score": 0.25, "seen": {"redweb": 7}, "unlogged": [1.5, 2], "name": "ä"}


def test_content_is_read_as_it_was_written():
    text = sealed({**CONTENT, "unlogged": (1.5, 2)})
    assert unsealed(text, "x") == CONTENT
    assert unsealed(text.encode(), "x") == CONTENT
    plain = json.dumps(CONTENT, sort_keys=True)
    assert json.loads(text)["sha256"] == hashlib.sha256(plain.encode()).hexdigest()


def test_the_text_depends_on_the_content_alone():
    assert sealed(CONTENT) == sealed(dict(reversed(CONTENT.items())))


@pytest.mark.parametrize("text", [
    "", "{}", "[1]", "null", "{", '{"sha256": 1}', b"\xff\xfe", "[" * 100_000, '{"a": NaN, "sha256": "x"}',
    '{"step": 1, "step": 2, "sha256": "x"}',
])  # fmt: skip
def test_other_text_is_one_line_with_the_files_name(text):
    with pytest.raises(DamagedFile, match=r"^runs/a/state\.json is damaged: .") as caught:
        unsealed(text, "runs/a/state.json")
    assert len(str(caught.value).splitlines()) == 1


def test_no_flipped_bit_changes_what_is_read():
    generator, text = random.Random(0), sealed(CONTENT).encode()
    changed = 0
    for _ in range(2000):
        hostile = bytearray(text)
        for _ in range(generator.randint(1, 3)):
            hostile[generator.randrange(len(hostile))] ^= 1 << generator.randrange(8)
        try:
            assert unsealed(bytes(hostile), "x") == CONTENT  # white space, at most
        except DamagedFile:
            changed += 1
    assert changed > 1900


def test_a_damaged_file_that_can_be_made_again_is_said_and_not_used(tmp_path):
    folder, said = Folder(tmp_path), []
    assert intact(folder, "result.json", said.append) is None
    folder.write_text("result.json", sealed(CONTENT))
    assert intact(folder, "result.json", said.append) == CONTENT
    folder.write_text("result.json", sealed(CONTENT).replace("3600", "3601"))
    assert intact(folder, "result.json", said.append) is None
    assert said == [
        f"{tmp_path}/result.json is damaged: its content differs from its digest; it is made again"
    ]
    with pytest.warns(Note, match="it is made again"):
        assert intact(folder, "result.json") is None
