"""A soak takes turns, keeps what it did, goes on from there, and ends with a table and the right exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from soak import __main__ as program
from soak.daemons import Sentences
from soak.operators import part as operators
from soak.operators.part import Operators
from soak.part import BrokenError, CutShortError, Part, Trial
from soak.state import StateError, load

pytestmark = [pytest.mark.slow, pytest.mark.jit]  # its kernels are tested both ways elsewhere

ROOT = Path(__file__).parents[2]


class Counting(Part):
    """Notes seeds, and breaks at every tenth if told to."""

    name = "counting"
    what = "a seed"
    breaks = False
    seeds: ClassVar[list[int]] = []

    def paths(self) -> frozenset[str]:
        return frozenset({"even", "odd", "neither"})

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        def trial(seed: int) -> None:
            self.seeds.append(seed)
            reached["odd" if seed % 2 else "even"] += 1
            time.sleep(0.005)
            if self.breaks and seed % 10 == 0:
                raise BrokenError("it is | a tenth")

        yield trial


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Counting]]:
    """The only part."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(program, "PARTS", {"counting": Counting})
    monkeypatch.setattr(Counting, "seeds", [])
    yield Counting
    signal.signal(signal.SIGTERM, before)


def test_a_soak_goes_on_where_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds follow one another from one soak to the next; none is tried twice."""
    for _ in range(2):
        assert program.main(["--minutes", "0.02", "--slice", "0.1", "--state", str(tmp_path)]) == 0
    first = Counting.seeds[0]
    assert Counting.seeds == list(range(first, first + len(Counting.seeds)))
    done = load(tmp_path).parts["counting"]
    assert done.trials == len(Counting.seeds) == sum(done.reached.values())
    shown = capsys.readouterr().out
    assert "2 of 3" in shown
    assert "counting, never reached:\n  neither" in shown


def test_a_part_for_which_there_is_too_little_time_left_is_not_begun_again(
    counting: type[Counting], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the operators' is, which takes its time as a whole: the soak ends before its own time is over."""
    begun: list[float] = []

    @contextmanager
    def session(part: Counting, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        begun.append(until_s)

        def trial(seed: int) -> None:
            raise CutShortError

        yield trial

    monkeypatch.setattr(counting, "session", session)
    assert program.main(["--minutes", "60", "--state", str(tmp_path)]) == 0
    assert len(begun) == 1
    assert capsys.readouterr().err.count("0 trials") == 1


def test_what_broke_is_a_row_with_the_command_that_replays_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 1, a row in text and in Markdown; the command breaks again; at a seed that does not, it passes."""
    monkeypatch.setattr(Counting, "breaks", True)
    target = tmp_path / "soak.md"
    arguments = ["--minutes", "0.01", "--slice", "0.1", "--state", str(tmp_path)]
    while (status := program.main([*arguments, "--markdown", str(target)])) == 0:
        pass  # it came to no tenth
    assert status == program.STATUS_BROKE
    failure = load(tmp_path).failures[0]
    assert failure.replay == f".venv/bin/python -m soak --part counting --seed {failure.seed}"
    assert (
        f"BROKE: counting, seed {failure.seed}: it is | a tenth\n  replay: {failure.replay}" in capsys.readouterr().out
    )
    assert (
        f"| counting | {failure.seed} | it is \\| a tenth | {failure.commit} | `{failure.replay}` | no |"
        in target.read_text()
    )
    assert "- neither" in target.read_text()
    assert program.main(["--part", "counting", "--seed", str(failure.seed)]) == program.STATUS_BROKE
    assert program.main(["--part", "counting", "--seed", str(failure.seed + 1)]) == 0


def test_a_seed_that_took_all_the_time_is_tried_again_with_as_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command names its minutes, and `--again` gives them."""
    monkeypatch.setattr(Counting, "breaks", True)
    monkeypatch.setattr(Counting, "takes_all", True)
    arguments = ["--part", "counting", "--state", str(tmp_path)]
    while (status := program.main([*arguments, "--minutes", "0.01"])) == 0:
        pass
    assert status == program.STATUS_BROKE
    failure = load(tmp_path).failures[0]
    assert failure.replay.endswith(f"--seed {failure.seed} --minutes 0.01")
    given: list[float] = []
    monkeypatch.setattr(program, "replay", lambda part, seed, reached, max_s: given.append(max_s))
    program.main([*arguments, "--again"])
    assert set(given) == {0.6}


@pytest.mark.parametrize("more", [[], ["--seed", "1"]])
def test_what_this_machine_lacks_is_a_sentence(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Prometheus no shift is begun: status 2."""
    monkeypatch.setattr(operators, "find", lambda name: None)
    monkeypatch.setattr(program, "PARTS", {"operators": Operators})
    arguments = ["--part", "operators", "--minutes", "0.002", "--state", str(tmp_path), *more]
    assert program.main(arguments) == program.STATUS_USAGE
    assert capsys.readouterr().err == "soak: there is no prometheus here: as root on Debian, make setup-guests\n"


def test_what_broke_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--again`: 1 as long as it breaks, 0 once it has been mended, and the table says so."""
    monkeypatch.setattr(Counting, "breaks", True)
    arguments = ["--minutes", "0.01", "--state", str(tmp_path)]
    while (status := program.main(arguments)) == 0:
        pass
    assert status == program.STATUS_BROKE
    assert program.main([*arguments, "--again"]) == program.STATUS_BROKE
    monkeypatch.setattr(Counting, "breaks", False)
    assert program.main([*arguments, "--again"]) == 0
    assert "tried again: at " in capsys.readouterr().out
    assert program.main([*arguments, "--table"]) == 0


def test_a_part_that_always_breaks_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After twenty failures it is not tried any more, and the soak ends if there is nothing else."""
    monkeypatch.setattr(Counting, "breaks", True)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert program.main(["--minutes", "5", "--state", str(tmp_path)]) == program.STATUS_BROKE
    assert len(load(tmp_path).failures) == 20


def test_several_soaks_make_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--table` adds up what is in all folders and tries nothing."""
    folders = [word for name in ("a", "b") for word in ("--state", str(tmp_path / name))]
    for name in ("a", "b"):
        program.main(["--minutes", "0.01", "--state", str(tmp_path / name)])
    tried = len(Counting.seeds)
    capsys.readouterr()
    assert program.main(["--table", *folders]) == 0
    assert f" {tried} " in capsys.readouterr().out
    assert len(Counting.seeds) == tried
    with pytest.raises(SystemExit):
        program.main(folders)


def test_a_part_is_put_into_a_page_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row and its sections, once, however often; all else stays as it is."""
    monkeypatch.setattr(Counting, "told", lambda self: "All is told.")
    page = tmp_path / "soak.md"
    before = "# Soak\n\n| part | trials |\n| --- | --- |\n| rings | 7 |\n\n## What broke\n\nNo.\n\n## rings: paths\n"
    page.write_text(before)
    arguments = ["--minutes", "0.01", "--state", str(tmp_path), "--into", str(page)]
    for _ in range(2):
        assert program.main(arguments) == 0
    lines = page.read_text().splitlines()
    assert [line for line in lines if line and line in before] == [line for line in before.splitlines() if line]
    trials = load(tmp_path).parts["counting"].trials
    assert lines[5].startswith(f"| counting | a seed | {trials} | ")
    for once in ("## counting: what the last trial found", "All is told.", "## counting: paths", "- neither"):
        assert lines.count(once) == 1


def test_what_a_part_broke_is_put_into_the_page_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of its older failures, beside the others' and before what is written below; once mended, not."""
    others = "| rings | 5 | it | abc | `replay` | no |"
    page, head = tmp_path / "soak.md", "# Soak\n\n| part | trials |\n| --- | --- |\n| rings | 7 |\n\n## What broke\n\n"
    arguments = ["--minutes", "0.002", "--into", str(page), "--state"]
    for had in ("Nothing.", f"| part | seed |\n| --- | --- |\n| counting | 3 | old | abc | `x` | no |\n{others}"):
        page.write_text(f"{head}{had}\n\nBy hand.\n\n## rings: paths\n")
        folder = tmp_path / str(len(had))
        monkeypatch.setattr(Counting, "breaks", True)
        while program.main([*arguments, str(folder)]) == 0:
            pass
        broke = page.read_text().split("## ")[1]
        seeds = [f"| counting | {one.seed} | it is \\| a tenth |" for one in load(folder).failures]
        assert [line[: len(seeds[0])] for line in broke.splitlines() if line.startswith("| counting")] == seeds
        assert (others in broke, "old" in broke, "Nothing." in broke) == (others in had, False, False)
        assert broke.endswith(" no |\n\nBy hand.\n\n")
        monkeypatch.setattr(Counting, "breaks", False)
        assert program.main([*arguments, str(tmp_path / "mended")]) == 0
        assert "| counting" not in page.read_text().split("## ")[1]
        assert ("Nothing." in page.read_text()) == (others not in had)


@pytest.mark.parametrize("page", [None, "# Soak\n\nNothing yet.\n"])
def test_a_page_that_nothing_can_be_put_into_is_told_first(
    page: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that there is not, and one without a table: status 2, and no seed was tried."""
    path = tmp_path / "soak.md"
    if page is not None:
        path.write_text(page)
    arguments = ["--minutes", "0.01", "--state", str(tmp_path), "--into", str(path)]
    assert program.main(arguments) == program.STATUS_USAGE
    assert f"soak: {path} " in capsys.readouterr().err
    assert Counting.seeds == []


def test_the_page_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not the other one that was asked for."""
    page, nowhere = tmp_path / "soak.md", tmp_path / "nowhere" / "new.md"
    page.write_text("# Soak\n\n| part | trials |\n| --- | --- |\n")
    arguments = ["--table", "--state", str(tmp_path), "--into", str(page), "--markdown", str(nowhere)]
    assert program.main(arguments) == program.STATUS_USAGE
    assert f"{nowhere} cannot be written" in capsys.readouterr().err


def test_a_state_that_cannot_be_read_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not overwritten."""
    (tmp_path / "state.json").write_text("{")
    assert program.main(["--state", str(tmp_path)]) == program.STATUS_USAGE
    assert "cannot be resumed" in capsys.readouterr().err
    with pytest.raises(StateError, match="remove it"):
        load(tmp_path)


@pytest.mark.jit
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_the_table_so_far(number: int, tmp_path: Path) -> None:
    """What was done is shown and kept."""
    command = [sys.executable, "-m", "soak", "--part", "rings", "--slice", "1", "--state", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stderr is not None
        assert "first seed" in process.stderr.readline()
        assert "trials up to seed" in process.stderr.readline()
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == program.STATUS_INTERRUPTED, err
    assert "Traceback" not in err
    assert "paths reached" in out
    assert json.loads((tmp_path / "state.json").read_text())["parts"]["rings"]["trials"] > 0


def test_sentences_are_found_in_the_log() -> None:
    """Those of the source, with what they were filled in with; not those of the other side."""
    sentences = Sentences(["virtio/vhost_user"], {"told": "something else"})
    line = 'level=error guest=two event="broke the protocol: request 77 is not known here"'
    assert list(sentences.within(line)) == ["virtio/vhost_user/rules: request … is not known here"]
    assert list(sentences.within("there was something else")) == ["told"]
    assert not any("without memory" in path for path in sentences.paths)
