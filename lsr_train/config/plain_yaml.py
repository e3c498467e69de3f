"""Reads plain YAML, in which aliases may not stand for more than a machine can hold."""

from typing import Any

import yaml

__all__ = ["load_yaml"]

_LARGEST = 1_000_000
"""Letters and nodes of a document with its aliases written out; nine levels of nine aliases would be 400 million."""
_LONGEST_NUMBER = 40
"""Letters of a whole number; one of thousands of digits can be neither compared with a fraction nor shown."""


class _Loader(yaml.SafeLoader):
    """Measures a document while it is composed, before anything is built of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._total = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        before = self._total
        alias = self.check_event(yaml.AliasEvent)
        node: Any = super().compose_node(parent, index)
        if alias and id(node) not in self._sizes:
            raise yaml.YAMLError("an alias stands within what it repeats")
        if alias:
            self._total += self._sizes[id(node)]
        else:
            self._total += 1 + len(node.value) if isinstance(node, yaml.ScalarNode) else 1
            self._sizes[id(node)] = self._total - before
        if self._total > _LARGEST:
            raise yaml.YAMLError(f"it holds more than {_LARGEST} letters with its aliases written out")
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _LONGEST_NUMBER:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1} has a number of {len(node.value)} letters")
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        known: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in known:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1} has the key {key.value} a second time")
            known.add((key.tag, str(key.value)))
        return node


def load_yaml(text: str) -> Any:
    """Return what a YAML text holds, of plain types alone.

    Raises:
        yaml.YAMLError: it is no YAML, has a tag that builds an object, a key twice, or aliases that explode.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:  # of PyYAML's constructors
        raise yaml.YAMLError(f"a value is not what its form or tag says ({error})") from error
    finally:
        loader.dispose()
