"""What a user sees of a command that is refused."""

import pytest

from pagetide import cli


def assert_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str, status: int = 2) -> None:
    """The command ends with this status, one line on standard error that has the sentence, and nothing else."""
    assert cli.main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pagetide: ")
    assert sentence in err
    assert err.count("\n") == 1
