"""What a test has scripted, for an explored machine: there, what may pause is a generator."""

from collections.abc import Container, Generator
from typing import Any


class Pausing:
    """The same as another object, with methods that may pause, and never do."""

    def __init__(self, scripted: object, methods: Container[str] | None = None) -> None:
        """Stand for it.

        Args:
            scripted: the other.
            methods: which of its methods may pause; None for all.
        """
        self._scripted = scripted
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._scripted, name)
        if not callable(made) or (self._methods is not None and name not in self._methods):
            return made

        def pausing(*arguments: Any) -> Generator[Any, Any, Any]:
            yield from ()
            return made(*arguments)

        return pausing
