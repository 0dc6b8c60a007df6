"""`python -m benchmarks`: what it prints, and the document that it makes. Measured is nothing here."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import guest_allocator, starting
from benchmarks.figures import BEGIN, END, Measured, section, with_sections
from benchmarks.operators.looking import median_between
from benchmarks.planners import three_builds, whole
from benchmarks.prize import real_memory
from benchmarks.prize.clairvoyant import bounds
from benchmarks.prize.lists import Listed, long_lists
from benchmarks.rows import Row, quartiles
from benchmarks.turns.builds import CommitError, Turn, both, tree_of, turns_row
from pagetide.machine.costs import read_costs
from pagetide.workload.lives import lives
from pagetide.workload.plan import plan_of
from pagetide.workload.stream_file import save_stream

pytestmark = pytest.mark.jit  # what kernels do as plain Python is not what is measured

ROWS = [Row("fast", 12.0, "ns", at_most=20), Row("slow", 3.0, "s", at_most=2, note="a|b"), Row("none", None, "s")]
ORDER = ["one", "two", "three"]


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three parts, the last of which is interrupted after a figure."""

    def interrupted() -> Iterator[Row]:
        yield ROWS[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmarks, "_PARTS", {"one": lambda: ROWS, "two": lambda: ROWS[:1], "three": interrupted})


def of(part: str, *rows: Row, processor: str = "X") -> Measured:
    """A part's figures."""
    return Measured(part, "2026-11-29", "abc", processor, 2, "6.18", 2.04, rows)


def test_a_median_is_known_between_two_ranks() -> None:
    """Of 100 values those 9.8 ranks to either side; of one, itself."""
    assert median_between([float(value) for value in range(100)]) == (40, 49.5, 59)
    assert median_between([7.0]) == (7, 7, 7)


def test_quartiles_are_what_half_of_the_values_lie_between() -> None:
    """Values that were measured, so the least and the largest are the ends; between two of them it is in proportion."""
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)
    values = np.random.default_rng(1).normal(size=20).tolist()
    assert quartiles(values) == pytest.approx(np.quantile(values, (0.25, 0.5, 0.75)))


@pytest.mark.parametrize("processors", [2, 3])
def test_reporting_beside_vcpus_is_asked_where_it_has_a_processor(
    processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two vCPUs and the worker need three; where there are two, the row says why nothing is asked."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(processors)))
    monkeypatch.setattr(guest_allocator, "_best_ns", lambda *_: 50.0)
    monkeypatch.setattr(guest_allocator, "_reporting_ratio", lambda *_: 1.05)
    ratios = [row for row in guest_allocator.run() if row.unit == "ratio"]
    assert [row.ok for row in ratios] == [False, False] + 2 * [False if processors == 3 else None]
    assert [bool(row.note) for row in ratios] == [False, False] + 2 * [processors == 2]


def test_rows_come_one_by_one_and_the_end_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A figure is printed before the next is measured; at the end it is said how many missed their target: status 1."""
    seen: list[str] = []

    def rows() -> Iterator[Row]:
        for row in ROWS:
            yield row
            seen.append(capsys.readouterr().out)

    monkeypatch.setitem(benchmarks._PARTS, "one", rows)
    assert benchmarks.main(["one"]) == 1
    assert [line.split()[0] for line in seen] == ["fast", "slow", "none"]
    told = capsys.readouterr().err
    assert "done: 3 figures in 0 s; 1 of their targets missed" in told
    assert "missed: slow" in told


def test_json_is_all_that_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the rows go to standard error as they come, and the figures are JSON."""
    assert benchmarks.main(["two", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [row["ok"] for row in json.loads(out)] == [True]
    assert "fast" in err


def test_an_interrupted_run_tells_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C is exit status 130; parts that were measured whole are in the document, and no other."""
    path = tmp_path / "figures.md"
    assert benchmarks.main(["two", "three", "--markdown", str(path)]) == 130
    assert "interrupted: 2 figures" in capsys.readouterr().err
    text = path.read_text()
    assert "### two" in text
    assert "### three" not in text


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("print('no memory'); sys.exit(1)", "had no burst: no memory"),
        ("print('burst 1'); print('burst 2 failed'); sys.exit(1)", "failed: burst 2 failed"),
    ],
)
def test_a_first_run_that_fails_is_no_figure(script: str, sentence: str) -> None:
    """Neither the time to its end nor to a burst before that passes for a start."""
    with pytest.raises(RuntimeError, match=sentence):
        starting.start(os.environ, (sys.executable, "-uc", f"import sys; {script}"))
    started = starting.start(os.environ, (sys.executable, "-uc", "print('burst 1')"))
    assert started.first_burst_s >= started.silent_s > 0


def test_a_command_that_is_timed_fails_with_a_sentence_and_is_left_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said is in the error; interrupted, it is killed, and its memory is looked at no more."""
    with pytest.raises(RuntimeError, match="no usage"):
        whole.spent([sys.executable, "-c", "import sys; sys.exit('no usage')"])
    pids: list[int] = []

    def interrupted(pid: int, _: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "wait4", interrupted)
    with pytest.raises(KeyboardInterrupt):
        whole.spent([sys.executable, "-c", "input()"])
    assert not Path(f"/proc/{pids[0]}").exists()
    assert "sampler" not in {thread.name for thread in threading.enumerate()}


def test_a_command_is_timed_to_its_end_and_not_to_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """However seldom memory is looked at, it is from the beginning."""
    monkeypatch.setattr(whole, "_EVERY_S", 3600.0)
    took = whole.spent([sys.executable, "-c", "import time; time.sleep(0.5)"])
    assert took.wall_s > 0
    assert took.most_bytes > 0


def test_a_fleet_that_fails_is_a_row_without_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other parts are measured nevertheless."""

    def fails(_: object) -> None:
        raise RuntimeError("pagetide fleet failed: no memory")

    monkeypatch.setattr(whole, "spent", fails)
    for row in (*whole.month(), *whole.drawn(1000)):
        assert (row.value, row.ok, row.note) == (None, None, "pagetide fleet failed: no memory")


def test_a_build_that_breaks_off_is_a_row_without_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other settings have theirs, and no ratio is made of what is missing."""
    constant = np.full(7200, 2.0)

    def held(setting: str, vm: int) -> tuple[np.ndarray, np.ndarray]:
        if setting == "scan":
            raise RuntimeError(f"scan, VM {vm}: out of memory")
        return constant, constant

    monkeypatch.setattr(three_builds, "held", held)
    rows = {row.name: row for row in three_builds.run()}
    assert rows["three VMs' builds, peak of the sum, off"].value == 6.0
    assert rows["three VMs' builds, peak of the sum, scan"].note == "scan, VM 0: out of memory"
    assert [name for name in rows if "scan" in name] == ["three VMs' builds, peak of the sum, scan"]


def test_a_target_names_both_of_its_bounds() -> None:
    """A figure that must lie between two says so, and misses it on either side."""
    rows = [Row("peak", value, "GiB", at_least=2, at_most=3) for value in (1.9, 2.5, 3.1)]
    assert [(row.target, row.ok) for row in rows] == [("from 2 to 3", ok) for ok in (False, True, False)]
    assert Row("peak", 1.0, "GiB", at_least=2).target == "at least 2"


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that is no part is named in one sentence, with those that there are, and nothing is measured."""
    with pytest.raises(SystemExit) as ended:
        benchmarks.main(["one", "four"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "there is no part 'four', only one, two, three" in err
    assert out == ""


def test_a_section_says_how_it_was_made() -> None:
    """Command, date, commit, processor and kernel are beside the figures; what missed its target is marked."""
    text = section(of("one", *ROWS))
    assert "`python -m benchmarks one`, 2026-11-29, commit abc, 2 CPUs X, Linux 6.18, load 2.0" in text
    assert "| fast | 12 ns | at most 20 |  |" in text
    assert "| slow | 3 s | at most 2, **missed** | a\\|b |" in text


def test_a_part_measured_anew_replaces_its_section_only() -> None:
    """The other parts, and what was written around them, stay; parts stand in their order, however they came."""
    text = with_sections("# Figures\n\nBefore.\n", [of("two", ROWS[0])], ORDER)
    text = with_sections(text + "\n## Earlier\n\n### two\n\nkept\n", [of("one", ROWS[0])], ORDER)
    text = with_sections(text, [of("two", ROWS[2])], ORDER)
    assert text.startswith("# Figures\n\nBefore.\n")
    assert text.endswith("## Earlier\n\n### two\n\nkept\n")
    inside = text.split(BEGIN)[1].split(END)[0]
    assert [line for line in inside.splitlines() if line.startswith("#")] == ["### one, X", "### two, X"]
    assert inside.count("| fast |") == 1
    assert with_sections(text, [of("two", ROWS[2])], ORDER) == text


def test_figures_of_two_processors_stand_apart() -> None:
    """One that is measured anew leaves the other's section as it is; both are beside each other."""
    text = with_sections(
        "", [of("two", ROWS[0]), of("one", ROWS[0], processor="B"), of("one", ROWS[0], processor="A")], ORDER
    )
    text = with_sections(text, [of("one", ROWS[1], processor="B")], ORDER)
    assert [line for line in text.splitlines() if line.startswith("#")] == ["### one, A", "### one, B", "### two, X"]
    assert [text.count(f"| {name} |") for name in ("fast", "slow")] == [2, 1]


SPEED = "import sys\nimport speed\nfor line in sys.stdin:\n    print(speed.NS * float(line), flush=True)\n"


@pytest.fixture
def two_builds(tmp_path: Path) -> Path:
    """A repository whose only commit has a build that takes 8 ns, and whose tree one that takes 2."""
    root, git = tmp_path / "repository", ["git", "-c", "user.name=N", "-c", "user.email=n@example.org", "-C"]
    (root / "src").mkdir(parents=True)
    (root / "src" / "speed.py").write_text("import os\nNS = 16 if 'NUMBA_CACHE_LOCATOR_CLASSES' in os.environ else 8\n")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, str(root), *command], check=True)
    (root / "src" / "speed.py").write_text("NS = 2\n")
    return root


def test_two_builds_are_compared_by_turns(two_builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs the same script on its own source; the row has the ratio and its spread, and nothing is left behind.

    Where this build keeps kernels is none of the other's business, which may have no such class.
    """
    monkeypatch.setenv("NUMBA_CACHE_LOCATOR_CLASSES", "pagetide.kernel_cache.KernelLocator")
    script = tmp_path / "work.py"
    script.write_text(SPEED)
    with both("HEAD", script, two_builds) as builds:
        before, after = (Turn(build, "3") for build in builds)
        reached = turns_row(before, after, 5, "work", at_most=0.5)
        missed = turns_row(before, after, 5, "work", at_most=0.2)
        unknown = turns_row(before, Turn(builds[1], "nan"), 5, "work", at_most=0.2)
    assert (reached.value, reached.ok, reached.note) == (0.25, True, "from 0.25 to 0.25")
    assert missed.ok is False
    assert (unknown.value, unknown.ok) == (None, None)
    trees = ["git", "-C", str(two_builds), "worktree", "list"]
    assert len(subprocess.run(trees, capture_output=True, text=True, check=True).stdout.splitlines()) == 1


def test_a_commit_that_is_not_there_is_named(two_builds: Path) -> None:
    """Git's own words, and no tree."""
    with pytest.raises(CommitError, match="nowhere"), tree_of("nowhere", two_builds):
        pass


def test_the_prize_needs_traces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a folder it is refused, and a folder without a trace is one sentence; nothing is measured."""
    with pytest.raises(SystemExit):
        benchmarks.main(["prize"])
    assert "prize needs --traces FOLDER" in capsys.readouterr().err
    assert benchmarks.main(["prize", "--traces", str(tmp_path)]) == 2
    assert "there is no trace to replay" in capsys.readouterr().err


@pytest.mark.alone  # live runs are held against simulated ones
def test_a_trace_is_replayed_live_and_simulated(tmp_path: Path, hugetmpfs: None) -> None:
    """On both kinds of host pages: what is held, refaulted and spent, live and simulated."""
    blocks = lives(np.arange(200) * 0.001, np.arange(200) * 0.001 + 0.5, np.zeros(200), np.zeros(200))
    save_stream(plan_of(blocks, name="little", end_s=1.0).whole(), tmp_path / "little.parquet")
    rows = list(real_memory.run(tmp_path / "little.parquet", repeats=1, costs=read_costs))
    spent = ["CPU of host and worker", "CPU of the host", "CPU of the guest's worker", "CPU of the rest of the guest"]
    found = [f"{what}, off by" for what in ("held", "refaulted", *spent)]
    assert [row.name.rpartition(": ")[2] for row in rows] == found * 3
    assert ["4 KiB" in row.name for row in rows] == [True] * 6 + [False] * 12
    assert [row.at_most for row in rows] == [10, 10, 10, None, None, None] * 3
    assert all(row.note.startswith("live ") and "simulated" in row.note for row in rows)
    assert rows[0].value is not None
    assert rows[0].value < 10


def test_long_per_cpu_lists_are_set_against_short_ones(tmp_path: Path) -> None:
    """A vCPU that is never idle keeps what it freed page by page, where its lists may be so long, and that is told."""
    freed = lives(np.zeros(20_000), 1.0, 0, 0)
    busy = lives(np.arange(300) * 0.09, np.arange(300) * 0.09 + 0.01, 0, 0)
    listed = Listed.of("little", plan_of(freed, busy, name="little", end_s=30.0).whole())
    row = long_lists([listed])
    assert row.value is not None
    assert row.value < 0.5
    assert row.ok is False
    assert len([*listed.rows()]) == 3


def test_who_knows_the_future_discards_what_stays_free() -> None:
    """A page that is free for a second and one that is free for a minute: who discards only the latter holds less."""
    born, dies = np.array([0.0, 0.0, 1.0]), np.array([10.0, 9.0, 70.0])
    blocks = lives(born, dies, np.zeros(3), np.zeros(3))
    found = bounds(plan_of(blocks, name="three", end_s=100.0).whole(), read_costs().backing("memfd"))
    everything, nothing = found[0], found[-1]
    assert everything.held_bytes == pytest.approx((10 + 9 + 69) / 100 * 4096)
    assert nothing.held_bytes == pytest.approx(3 * 4096 * 0.99 + 2 * 4096 * 0.01)
    assert everything.cpu_s > nothing.cpu_s == 0
