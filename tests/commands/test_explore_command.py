"""`pagetide explore`, as a command."""

import json

import pytest

from pagetide import cli

pytestmark = pytest.mark.slow


def test_a_chosen_scenario_is_explored(capsys: pytest.CaptureFixture[str]) -> None:
    """One row a design and scenario, in a table or as JSON, and status 0 if all is sound."""
    assert cli.main(["explore", "--design", "off", "--scenario", "zone"]) == 0
    table = capsys.readouterr().out
    assert cli.main(["explore", "--design", "off", "--scenario", "zone", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["design"], row["name"], row["passed"], row["violation"]) == ("off", "zone", True, None)
    assert row["states"] > 100
    assert f"{row['states']} states" in table


def test_broken_variants_of_a_design(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the design's own, each with what caught it; status 0 when all are caught."""
    assert cli.main(["explore", "--broken", "--design", "sync", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) >= 2
    assert all(row["design"] == "sync" and row["passed"] and row["violation"] and row["steps"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--design nosuch", "there is no design 'nosuch'; choose from off, sync"),
        ("--design off --scenario nosuch", "there is no scenario 'nosuch'; choose from start"),
        ("--design shared --scenario zone", "no chosen design has a scenario zone: shared has frames"),
        ("--broken --scenario zone", "--broken goes with --design only"),
        ("--broken --design off", "nothing is broken on purpose in off; choose from cursor"),
    ],
)
def test_what_would_explore_nothing_is_refused(
    arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that looks at nothing would always pass: status 2 and a sentence that says what there is."""
    assert cli.main(["explore", *arguments.split()]) == 2
    assert sentence in capsys.readouterr().err
