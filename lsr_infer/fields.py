"""Typed look-ups in a parsed JSON document, each with one line for what is wrong.

What comes out can be written again: texts are Unicode, numbers are finite.
"""

import math
from collections.abc import Iterable
from typing import Any

from lsr_infer.errors import InputError

__all__ = ["Fields"]


class Fields:
    """A JSON object whose values are asked for by key and type.

    Args:
        document: the parsed object.
        name: what it is called in messages.

    Raises:
        InputError: it is no object; every look-up likewise, where the value is missing or of another type.
    """

    def __init__(self, document: Any, name: str) -> None:
        if not isinstance(document, dict):
            raise InputError(f"{name} is no JSON object. Export the model again.")
        self._document: dict[str, Any] = document
        self._name = name

    def _get(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        value = self._document.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            found = f"is {str(value)[:40]!r}" if key in self._document else "is missing"
            raise InputError(f"{self._name}: {key} {found}; needed: {what}. Export the model again.")
        return value

    def text(self, key: str) -> str:
        """Return a text."""
        value: str = self._get(key, str, "text")
        self._check_unicode(key, [value])
        return value

    def _check_unicode(self, key: str, texts: Iterable[str]) -> None:
        """Raise for a text with half a surrogate pair, which JSON can spell and no file can hold."""
        for text in texts:
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InputError(f"{self._name}: {key} holds {text[:40]!a}, no Unicode text. Export the model again.")

    def integer(self, key: str) -> int:
        """Return a whole number."""
        return int(self._get(key, int, "a whole number"))

    def optional_integer(self, key: str) -> int | None:
        """Return a whole number, None where it is null or missing."""
        return None if self._document.get(key) is None else self.integer(key)

    def number(self, key: str) -> float:
        """Return a finite number."""
        try:
            value = float(self._get(key, (int, float), "a number"))
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise InputError(f"{self._name}: {key} is no finite number. Export the model again.")
        return value

    def optional_number(self, key: str) -> float | None:
        """Return a finite number, None where it is null or missing."""
        return None if self._document.get(key) is None else self.number(key)

    def nullable_number(self, key: str) -> float | None:
        """Return a finite number, None where it is null; it may not be missing."""
        return None if self._document.get(key, "") is None else self.number(key)

    def boolean(self, key: str) -> bool:
        """Return true or false."""
        return bool(self._get(key, bool, "true or false"))

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object."""
        value: dict[str, Any] = self._get(key, dict, "an object")
        self._check_unicode(key, value)
        return value

    def optional_mapping(self, key: str) -> dict[str, Any] | None:
        """Return an object, None where it is null or missing."""
        return None if self._document.get(key) is None else self.mapping(key)

    def section(self, key: str) -> "Fields":
        """Return an object to ask on."""
        return Fields(self.mapping(key), f"{self._name}: {key}")

    def optional_section(self, key: str) -> "Fields | None":
        """Return an object to ask on, None where it is null or missing."""
        return None if self._document.get(key) is None else self.section(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values: list[Any] = self._get(key, list, "a list of texts")
        if not all(isinstance(value, str) for value in values):
            raise InputError(f"{self._name}: {key} holds more than texts. Export the model again.")
        self._check_unicode(key, values)
        return tuple(values)

    def integers(self, key: str) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        return self._whole(key, self._get(key, list, "a list of whole numbers"))

    def _whole(self, key: str, values: Any) -> tuple[int, ...]:
        """Return the values of a list of whole numbers."""
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            raise InputError(f"{self._name}: {key} holds more than whole numbers. Export the model again.")
        return tuple(values)

    def integer_lists(self, key: str) -> tuple[tuple[int, ...], ...]:
        """Return a list of lists of whole numbers."""
        return tuple(self._whole(key, values) for values in self._get(key, list, "a list of lists of whole numbers"))

    def named_integers(self, key: str) -> dict[str, tuple[int, ...]]:
        """Return an object whose values are all lists of whole numbers; empty where it is missing."""
        section = {} if self._document.get(key) is None else self.mapping(key)
        return {name: self._whole(key, values) for name, values in section.items()}

    def counts(self, key: str) -> dict[str, int]:
        """Return an object whose values are all whole numbers."""
        section = self.section(key)
        return {name: section.integer(name) for name in section._document}

    def optional_integers(self, key: str) -> tuple[int, ...] | None:
        """Return a list of whole numbers, None where it is null or missing."""
        return None if self._document.get(key) is None else self.integers(key)

    def holds(self, key: str, value: object) -> bool:
        """Return whether the key has exactly this value."""
        return bool(self._document.get(key) == value)

    def numbers(self, key: str) -> dict[str, float]:
        """Return an object whose values are all finite numbers."""
        section = self.section(key)
        return {name: section.number(name) for name in section._document}
