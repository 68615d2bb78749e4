"""YAML read and written by one set of rules: whatever two readers could take for two things is refused.

YAML 1.1, which PyYAML reads, lets the last of two equal keys win, reads `010` as 8, `1:30` as 90 and `1e5` as
text. Here equal keys and such numbers are refused by key, and `1e5` is a number, as in YAML 1.2.
"""

import re
from typing import Any

import yaml

from datasets_prep.errors import UserError

_TAGS = {kind: f"tag:yaml.org,2002:{kind}" for kind in ("int", "float")}
_FLOAT = re.compile(r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$")
_LEADING_ZERO = re.compile(r"^[-+]?0[\d_]+$")


class InvalidYaml(UserError):
    """A text that is not YAML, or not unambiguous; the message names line or key, not the file."""


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` by the rules above."""

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        _check(node, (), set())
        return self.construct_document(node)


class _Dumper(yaml.SafeDumper):
    """`yaml.SafeDumper` that quotes all text that `_Loader` would take for a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_TAGS["float"], _FLOAT, list("-+.0123456789"))
    _class.add_implicit_resolver(_TAGS["int"], _LEADING_ZERO, list("-+0"))


def load_yaml(content: str | bytes) -> Any:
    """The value of the YAML document `content`: text, or bytes in UTF-8 or, with a byte-order mark, UTF-16.

    Raises:
        InvalidYaml: if it is not YAML, or has a key twice, or an octal or sexagesimal number.
    """
    try:
        return yaml.load(content, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InvalidYaml(f"not valid YAML: {line}{error.problem}") from error
    except InvalidYaml:
        raise
    # Also text that is not UTF-8, numbers of thousands of digits, and tags on values that they do not fit.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        hint = "; save it in UTF-8" if isinstance(error, yaml.reader.ReaderError) else ""
        raise InvalidYaml(f"not valid YAML: {' '.join(str(error).split()):.200}{hint}") from error


def dump_yaml(value: Any) -> str:
    """The plain `value` as YAML, keys in their order; `load_yaml` reads the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check(node: yaml.Node, path: tuple[str, ...], seen: set[int]) -> None:
    """Refuse equal keys and ambiguous numbers at or below `node`, whose key is `path`."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, path)
        for key, value in node.value:
            _check(key, path, seen)
            _check(value, (*path, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check(item, (*path, str(index)), seen)
    elif isinstance(node, yaml.ScalarNode) and node.tag in _TAGS.values() and not node.style:
        _check_number(str(node.value), path)


def _check_keys(node: yaml.MappingNode, path: tuple[str, ...]) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                first, name = lines[key.tag, key.value], ".".join((*path, key.value))
                raise InvalidYaml(f"{name}: key given twice, in lines {first} and {line}")
            lines[key.tag, key.value] = line


def _check_number(text: str, path: tuple[str, ...]) -> None:
    place = f"{'.'.join(path)}: " if path else ""
    if _LEADING_ZERO.match(text):
        plain = re.sub(r"^([-+]?)[0_]+(?=\d)", r"\1", text)
        raise InvalidYaml(f"{place}{text} is octal in YAML; write {plain}, or '{text}' for text")
    if ":" in text:
        raise InvalidYaml(f"{place}{text} counts in sixties in YAML; write one number, or '{text}' for text")
