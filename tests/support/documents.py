"""The README and the pages of `docs/` as tests read them: code blocks, and the commands in shell blocks."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = (README, *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "benchmarks" / "README.md")


@dataclass(frozen=True)
class Block:
    """A fenced code block of a page; `line` is that of its first line of code."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """All code blocks of a language, in all pages."""
    fenced = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found: list[Block] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        starts = [(match.start(1), match[1]) for match in fenced.finditer(text)]
        found += [Block(page, text[:start].count("\n") + 1, language, code) for start, code in starts]
    return found


def commands(code: str) -> Iterator[list[str]]:
    """Commands of a shell block as words; `for x in a b; do … done` is unrolled, redirections are dropped."""
    values: dict[str, list[str]] = {}
    for line in code.replace("\\\n", " ").splitlines():
        if match := re.fullmatch(r"for (\w+) in (.+); do", line.strip()):
            values[match[1]] = match[2].split()
        elif line.strip() == "done":
            values.clear()
        else:
            for text in _unrolled(line, values):
                yield from _split(text)


def _unrolled(line: str, values: dict[str, list[str]]) -> list[str]:
    lines = [line]
    for name, choices in values.items():
        lines = [text.replace(f"${name}", choice) for text in lines for choice in choices]
    return lines


def _split(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&<>")
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for word in [*lexer, "&&"]:
        if word in ("|", "&&"):
            if words:
                yield words
            words = []
        elif word in ("<", ">"):
            redirected = True
        elif redirected:
            redirected = False
        else:
            words.append(word)
