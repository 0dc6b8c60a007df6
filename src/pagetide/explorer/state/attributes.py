"""The attributes of an explored machine's objects, as one value that is compared by identity, kept and set again."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np

_SCALARS = (int, float, str, tuple, type(None), np.generic)


class Values:
    """What all objects' attributes were at some time, of each object. Equal ones are one and the same."""

    __slots__ = ("of_each",)

    def __init__(self, of_each: tuple[dict[str, Any], ...]) -> None:
        self.of_each = of_each


class Attributes:
    """What changes in one object."""

    def __init__(self, thing: Any) -> None:
        self.values = vars(thing)
        self._fixed = {name for name, value in self.values.items() if not _may_change(value)}
        self.names: tuple[str, ...] = ()
        self._known: dict[Any, dict[str, Any]] = {}
        self.get: Callable[[dict[str, Any]], Any] = _nothing

    def look_again(self) -> None:
        """Find the names anew: something may have got its first value."""
        names = tuple(name for name in self.values if name not in self._fixed)
        if names == self.names:
            return
        for name in names:
            assert _may_change(self.values[name]), f"{name} is of a kind that the explorer does not know"
        self.names, self._known, self.get = names, {}, self._getter(names)

    def _getter(self, names: tuple[str, ...]) -> Callable[[dict[str, Any]], Any]:
        """What makes a key of the values: a tuple, also of one."""
        return itemgetter(*names, names[0])

    def now(self, key: Any) -> dict[str, Any]:
        """The attributes, whose key this is; equal ones are one and the same, to save room."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = {name: self.values[name] for name in self.names}
        return known


class StepsAttributes(Attributes):
    """What changes in who reports; what is in a batch that is out is the design's, so that only its length counts."""

    def _getter(self, names: tuple[str, ...]) -> Callable[[dict[str, Any]], Any]:
        get = itemgetter(*[name for name in names if name != "batch"])

        def with_length_only(values: dict[str, Any]) -> Any:
            batch = values["batch"]
            return get(values), None if batch is None else len(batch)

        return with_length_only


class Things:
    """What changes in all objects."""

    def __init__(self, attributes: list[Attributes]) -> None:
        self._attributes = attributes
        self._values = [one.values for one in attributes]
        self._size = -1
        self._seen_by_names: dict[Any, dict[Any, Values]] = {}

    def capture(self) -> Values:
        """What they are now."""
        if sum(map(len, self._values)) != self._size:
            self._look_again()
        key = tuple([get(values) for get, values in self._getters])
        seen = self._seen.get(key)
        if seen is None:
            each = zip(self._attributes, key, strict=True)
            seen = self._seen[key] = Values(tuple([one.now(part) for one, part in each]))
        return seen

    def _look_again(self) -> None:
        self._size = sum(map(len, self._values))
        for one in self._attributes:
            one.look_again()
        self._getters = [(one.get, one.values) for one in self._attributes]
        self._seen = self._seen_by_names.setdefault(tuple([one.names for one in self._attributes]), {})

    def restore(self, seen: Values) -> None:
        """Set them to what they were."""
        for values, then in zip(self._values, seen.of_each, strict=True):
            values.update(then)


def _nothing(_: dict[str, Any]) -> tuple[()]:
    return ()


def _may_change(value: Any) -> bool:
    return isinstance(value, _SCALARS)


def objects_of(thing: Any) -> Iterator[Any]:
    """An object of the explored package, and those that it holds."""
    found = [thing]
    for one in found:
        yield one
        for value in vars(one).values():
            ours = type(value).__module__.startswith("pagetide.") and hasattr(value, "__dict__")
            if ours and not any(value is other for other in found):
                found.append(value)
