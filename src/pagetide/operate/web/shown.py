"""What a page can show: the guests of a daemon (recorder.py), or a run (run_shown.py)."""

from typing import Any, Protocol

from pagetide.operate.web.told_lines import Event


class Shown(Protocol):
    """Where the answers come from; `Recorder` says what each is. They are asked from any thread."""

    @property
    def message(self) -> bytes:
        """The last look, as JSON."""

    def asked_as(self, guest: str) -> str | None:
        """By what `pagetide why` can be asked of a guest of this name; None if there is none."""

    def events(self, guest: str) -> list[Event]:
        """What happened to it."""

    def curves(self, guest: str, span_s: float) -> dict[str, Any]:
        """Its curves."""

    def map_at(self, guest: str, t_s: float) -> dict[str, Any] | None:
        """Its page map."""
