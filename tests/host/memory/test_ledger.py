"""The host's account."""

import subprocess
import sys

import numpy as np
import pytest

from pagetide.host.memory.ledger import LEDGER_WORDS, SKIP_REASONS, WORD_NAMES, Ledger

pytestmark = pytest.mark.jit  # no kernel is called


def test_a_new_ledger_is_all_zeros() -> None:
    """Without an array, every word starts at zero under its own name."""
    snapshot = Ledger().snapshot()
    assert set(snapshot.values()) == {0}
    assert len(snapshot) == len(set(WORD_NAMES)) == LEDGER_WORDS


def test_a_ledger_reads_the_array_it_was_given() -> None:
    """A second ledger over the same memory, as a viewer has, sees what is written through the first."""
    words = np.arange(LEDGER_WORDS, dtype=np.int64)
    writer, reader = Ledger(words), Ledger(words)
    writer.words[SKIP_REASONS["failed"]] = 77
    assert reader.skipped_bytes()["failed"] == 77
    assert reader.snapshot()["skipped_failed_bytes"] == 77


def test_every_skip_reason_has_a_word_of_its_own_name() -> None:
    """Reasons, words and names agree."""
    assert {f"skipped_{reason}_bytes": word for reason, word in SKIP_REASONS.items()} == {
        name: word for word, name in enumerate(WORD_NAMES) if name.startswith("skipped_")
    }


@pytest.mark.parametrize(
    "words", [np.zeros(3, dtype=np.int64), np.zeros(LEDGER_WORDS), np.zeros(2 * LEDGER_WORDS, dtype=np.int64)[::2]]
)
def test_an_array_of_another_shape_or_type_is_refused(words: np.ndarray) -> None:
    """Kernels write through the array, so a wrong one is an error at once."""
    with pytest.raises(ValueError, match="a ledger is"):
        Ledger(words)


def test_the_layout_imports_without_numba() -> None:
    """A viewer that only reads the words does not pay for a compiler."""
    code = "import sys, pagetide.host.memory.ledger; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
