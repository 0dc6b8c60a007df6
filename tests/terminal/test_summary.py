"""The summary's words follow from its figures."""

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from pagetide.machine.config import RunConfig
from pagetide.machine.result import Burst
from pagetide.machine.settings.file import make_config
from pagetide.terminal.summary import problems, summarise, verdict
from tests.commands.fake_machine import MIB, result_of

NEVER_BACK = Burst(
    eat_start_s=0,
    free_start_s=1,
    free_end_s=2,
    eaten_bytes=256 * MIB,
    returned_bytes=0,
    verified_bytes=0,
    return_lag_s=None,
)


def test_a_good_run_says_so() -> None:
    """Lag, verification and stamps are each one sentence."""
    assert verdict(result_of()) == (
        "After each burst the host had its memory back within 1.50 s. Every discarded byte was verified to be gone. "
        "No stamp was wrong."
    )
    assert problems(result_of()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stamp_errors": 2}, "2 stamps were wrong"),
        ({"verified_bytes": 254 * MIB}, "1 MiB were still there"),
        ({"skipped_bytes": {"failed": 4096}}, "4 KiB could not be discarded"),
        ({"outcome": "the host's process was killed by SIGKILL"}, "The host's process was killed by SIGKILL."),
    ],
)
def test_a_bad_run_says_what_is_wrong(changes: dict[str, Any], sentence: str) -> None:
    """Each problem is named, and the good words are gone."""
    text = verdict(result_of(**changes))
    assert sentence in text
    assert "back within" not in text


def test_a_huge_page_that_was_not_split_is_explained() -> None:
    """Blocks smaller than the pages behind them may stay, and the sentence says what would help."""
    config = RunConfig(ram_bytes=512 * MIB, backing="hugetmpfs", order=0)
    assert "--order 9 reports whole ones" in verdict(result_of(config, verified_bytes=254 * MIB))
    assert "--order 9" not in verdict(result_of(verified_bytes=254 * MIB))


def test_a_result_of_before_there_was_a_choice_split_pages() -> None:
    """What was saved without `split` gave back parts of the host's pages, and is not refused for that."""
    config = make_config({"ram": "512MiB", "backing": "hugetmpfs", "design": "pool"})
    assert config.tuning.unit_order == 9
    saved = msgspec.to_builtins(config) | {"order": 0}
    del saved["split"]
    before = msgspec.convert(saved, RunConfig)
    before.check()
    assert before.tuning.unit_order == 0
    assert "did not split a 2 MiB page" in verdict(result_of(before, verified_bytes=254 * MIB))


def test_memory_that_stays_is_said_but_is_no_error() -> None:
    """With reporting off the host keeps the memory: that is what was asked for."""
    result = result_of(bursts=[NEVER_BACK], discarded_bytes=0, checked_bytes=0, verified_bytes=0)
    assert "did not get its memory back: up to 256 MiB" in verdict(result)
    assert problems(result) == []


def test_only_the_bursts_that_did_not_come_back_are_said_to_have_stayed() -> None:
    """One burst of two came back: the sentence counts it, and the bytes are the other's."""
    good = result_of().bursts[0]
    assert verdict(result_of(bursts=[good, NEVER_BACK])).startswith(
        "The host had its memory back after 1 of 2 bursts; up to 256 MiB of a burst of 256 MiB stayed."
    )


def test_partial_verification_is_not_called_complete() -> None:
    """With half of the reports read back, the sentence says half."""
    result = result_of(checked_bytes=100 * MIB, verified_bytes=100 * MIB, discarded_bytes=200 * MIB)
    assert "50% of the discarded was checked, and all of that was verified to be gone" in verdict(result)


def test_an_interrupted_run_says_so() -> None:
    """Ctrl-C is no failure, but the figures are of a part."""
    assert "interrupted" in verdict(result_of(outcome="interrupted"))
    nothing = result_of(outcome="interrupted", bursts=[], checked_bytes=0, verified_bytes=0, stamp_errors=None)
    assert verdict(nothing) == "The run was interrupted; this is what it had measured."


def test_what_was_returned_leads() -> None:
    """The totals begin with what came back, and no burst shows what was verified gone as that."""
    file = io.StringIO()
    Console(file=file, width=100).print(summarise(result_of()))
    bursts, totals = file.getvalue().split("254 MiB", 1)
    assert bursts.split()[-1] == "returned"
    assert "verified gone" not in bursts
    assert "verified gone" in totals


def test_figures_that_there_are_not_are_a_dash() -> None:
    """None never shows as 0."""
    file = io.StringIO()
    Console(file=file, width=100).print(summarise(result_of(guest_cpu_s=None, stamp_errors=None)))
    text = file.getvalue()
    assert "guest CPU time" in text
    assert text.count("–") == 2  # noqa: RUF001


def test_what_stays_by_design_is_named_and_not_held_against_it() -> None:
    """The time is that of what came back, and the rest has its size and its reason; a lag of nothing is `at once`."""
    config = RunConfig(ram_bytes=512 << 20, design="sync")
    rest = Burst(
        eat_start_s=0, free_start_s=1, free_end_s=2, eaten_bytes=256 << 20, returned_bytes=216 << 20, verified_bytes=0,
        return_lag_s=0.0,
    )  # fmt: skip
    told = result_of(config=config, bursts=[rest])
    assert verdict(told).startswith(
        "After each burst the host had its memory back by the time that it was freed, "
        "but for up to 40 MiB, which does not fill a batch."
    )
    console = Console(width=100, file=io.StringIO())
    console.print(summarise(told))
    assert "at once, but 40 MiB" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_still_in_use_did_not_stay() -> None:
    """Of a burst of which the guest keeps a half, as with `boot --sieve`, the other half is all that can come back."""
    whole = result_of()
    used, held = whole.samples.guest_used_bytes, whole.samples.host_resident_bytes
    kept = [each if index < 30 else 129 * MIB for index, each in enumerate(used)]
    half_back = [each if index < 45 else 129 * MIB for index, each in enumerate(held)]
    samples = msgspec.structs.replace(whole.samples, guest_used_bytes=kept, host_resident_bytes=half_back)
    burst = msgspec.structs.replace(whole.bursts[0], returned_bytes=127 * MIB)
    told = result_of(samples=samples, bursts=[burst])
    assert verdict(told).startswith("After each burst the host had its memory back within 1.50 s. ")
    unused = result_of(bursts=[burst])
    assert verdict(unused).startswith(
        "After each burst the host had its memory back within 1.50 s, but for up to 129 MiB"
    )


def test_a_guest_that_reports_nothing_is_told_so() -> None:
    """Nobody failed: the design returns nothing."""
    told = result_of(config=RunConfig(ram_bytes=512 << 20, design="off"), bursts=[NEVER_BACK])
    assert verdict(told).startswith("Nothing was reported, so the host kept what the guest freed: up to 256 MiB")
