"""The whole harness at a tiny size: every case runs, and what comes out is whole."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from benchmarks.__main__ import main
from benchmarks.cases import CASES, turns
from benchmarks.cases.start import import_row
from benchmarks.report import markdown, words
from benchmarks.results import Curve, Figure, Goal, Report, Row
from benchmarks.run import run
from benchmarks.scale import TINY
from benchmarks.statistics import Spread
from director_db_conformance.servers import NoServerError, offered_postgres

pytestmark = pytest.mark.sampled(together=True)

COUNTED_ON_THE_WIRE = (
    "upsert",
    "bulk of 50",
    "a page of 50",
    "save a context, grown by one",
    "append to a context",
    "read a context",
    "delete a session",
)


@pytest.fixture
def draw():
    """What draws the pictures. Not at import: every process of a run imports this file."""
    from benchmarks.report.plots import draw  # noqa: PLC0415

    return draw


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """One run of every case, for all tests of this file."""
    return run(CASES, TINY, use_peers=False, folder=tmp_path_factory.mktemp("bench"))


def row(median, goal=None, **fields):
    figures = [
        Figure("ours", Spread.exactly(0.002)),
        Figure("raw", Spread.exactly(0.001)),
        Figure("Peer", Spread.exactly(0.004), is_peer=True),
    ]
    return Row("case", "SQLite: work", "s", figures, Spread.exactly(median), goal, **fields)


def small_report(*rows):
    machine = {
        "cores": "2",
        "processor": "P",
        "file system": "ext4",
        "load when it began": "0.1",
        "Python": "3.11",
        "SQLite": "3.40",
        "Postgres": "none",
    }
    return Report("2026-01-01 00:00 UTC", "tiny", machine, 1.0, [*rows])


def has_postgres():
    try:
        return bool(offered_postgres())
    except NoServerError:
        return False


def test_every_case_that_can_run_gives_rows(report):
    expected = {case.name for case in CASES if case.backend != "postgres" or has_postgres()}
    assert expected == {row.case for row in report.rows}


def test_every_case_says_what_it_compares():
    cases = [*CASES, *turns.CASES]
    assert [] == [case.name for case in cases if len(case.about) < 40]
    assert len(cases) == len({case.name for case in cases})


def test_a_ratio_is_that_of_the_figures(report):
    for each in report.rows:
        if each.goal is None or not each.goal.of.startswith("x ") or len(each.figures) < 2:
            continue
        against = each.goal.of.removeprefix("x ")
        (other,) = [figure for figure in each.figures if figure.name == against]
        low = each.figures[0].spread.p10 / other.spread.p90 / 10
        high = each.figures[0].spread.p90 / other.spread.p10 * 10
        assert low < each.measured.median < high, each.work


def test_the_round_trips_are_counted(report):
    counted = {row.work: row.measured.median for row in report.rows if "on the wire" in row.work}
    expected = {f"Postgres: {work}, on the wire": 1.0 for work in COUNTED_ON_THE_WIRE}
    assert (expected if has_postgres() else {}) == counted


def test_importing_loads_no_driver(report):
    (loaded,) = [row for row in report.rows if "loaded" in row.facts]
    assert (0.0, "none") == (loaded.measured.median, loaded.facts["loaded"])


def test_processes_that_share_a_file_are_judged(report):
    rows = [row for row in report.rows if row.case == "fairness-sqlite"]
    expected = [
        ("SQLite: upserts, 2 processes, errors", "≤ 0 errors"),
        ("SQLite: upserts, 2 processes, wait of one call in 1,000", "≤ 1 s"),
        ("SQLite: upserts, 2 processes, the worst call", "≤ 5 s"),
        ("SQLite: upserts, 2 processes, the longest checkpoint", "None"),
    ]
    assert expected == [(row.work, str(row.goal)) for row in rows]
    assert 0.0 == rows[0].measured.median
    (calls, _, _) = rows[0].facts["calls"].partition(" in ")
    assert 0 < int(calls.replace(",", ""))


def test_an_import_is_the_least_of_the_starts_beyond_the_least_bare_one():
    row = import_row([0.5, 0.075, 0.25], [0.0625, 0.025, 0.5])
    assert pytest.approx(50) == row.measured.median
    assert {"starts": "3, the least of each", "with it": "75.0 ms", "bare": "25.0 ms"} == row.facts


def test_nothing_failed(report):
    assert [] == [note for note in report.notes if not note.startswith("Postgres was not")]


def test_a_report_survives_its_file(report, tmp_path):
    report.save(tmp_path / "report.json")
    assert report == Report.load(tmp_path / "report.json")


def test_the_pictures_are_drawn(report, draw, tmp_path):
    drawn = draw(report, tmp_path)
    assert {"conversation", "context", "sessions", "threads", "coroutines"} == set(drawn)
    for name in drawn.values():
        root = ET.parse(tmp_path / name).getroot()  # noqa: S314 - our own
        assert "{http://www.w3.org/2000/svg}svg" == root.tag


def test_the_same_figures_give_the_same_picture(draw, tmp_path):
    report = small_report()
    report.curves.append(Curve("sessions", "sqlite", "ours", [(10, 0.001), (100, 0.002)]))
    pictures = []
    for folder in ("one", "two"):
        draw(report, tmp_path / folder)
        pictures.append((tmp_path / folder / "sessions.svg").read_bytes())
    assert pictures[0] == pictures[1]


def test_the_page_has_every_row_and_every_case(report):
    page = markdown.page(report, CASES, {"threads": "threads.svg"})
    assert [] == [row.work for row in report.rows if f"| {row.work} |" not in page]
    assert [] == [case.name for case in CASES if f"`{case.name}`" not in page]
    assert "![Messages stored in a second, by the number of threads](threads.svg)" in page


def test_the_readme_gets_few_rows_beside_the_limit_and_the_fastest_peer():
    text = f"above\n{markdown.BEGIN}\nold\n{markdown.END}\nbelow\n"
    shown = replace(row(1.1, Goal(1.15, "x raw")), work=markdown.README_ROWS[0])
    shown.figures.append(Figure("Fast peer", Spread.exactly(0.003), is_peer=True))
    report = small_report(shown, row(9.9))
    changed = markdown.into_readme(text, report)
    assert changed.startswith("above\n")
    assert changed.endswith(f"{markdown.END}\nbelow\n")
    assert "old" not in changed
    cells = ["2 ms", "1 ms", "1.1 (≤ 1.15 x raw)", "Fast peer 3 ms (1.5 x)"]
    expected = f"| SQLite: upsert, 1 thread | {' | '.join(cells)} |"
    assert [expected] == [line for line in changed.splitlines() if line.startswith("| SQLite")]
    assert changed == markdown.into_readme(changed, report)


def test_the_page_of_the_integrations_gets_a_line_for_each_store_and_a_column_for_each_size():
    def turn(items, sessions, ratios, store="Store"):
        figures = [
            Figure("ours", Spread.exactly(200)),
            Figure(store, Spread.exactly(100), is_peer=True),
        ]
        work, goal = f"SQLite: Kit, {items} items, {sessions}", Goal(1, f"x {store}", at_least=True)
        return Row("kit-sqlite", work, "/s", figures, Spread.of(ratios), goal)

    report = small_report(
        turn("10", "1 session", [2.04] * 9),
        turn("10", "1 session", [0.5] * 9, "Other"),
        turn("10", "100 sessions", [0.5, 1.1, 3]),
        turn("1,000", "1 session", [12.3] * 9),
    )
    text = f"above\n{markdown.BEGIN_TURNS}\nold\n{markdown.END_TURNS}\nbelow\n"
    changed = markdown.into_turns(text, report)
    assert [
        "| beside | 1 session, 10 items | 1 session, 1,000 items | 100 sessions, 10 items |",
        "|---|--:|--:|--:|",
        "| SQLite: Kit, Store | 2 x | 12 x | 1.1 x ? |",
        "| SQLite: Kit, Other | **0.5 x** | - | - |",
    ] == [line for line in changed.splitlines() if line.startswith("|")]
    assert changed == markdown.into_turns(changed, report)


def test_without_the_frameworks_nothing_of_them_is_measured_and_the_report_says_so(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(turns, "installed_peers", lambda *_: iter(()))
    cases = [case for case in turns.CASES if case.backend == "sqlite"]
    report = run(cases, TINY, folder=tmp_path)
    assert [] == report.rows
    assert "OpenAI Agents SDK, SQLiteSession (sqlite) is not installed." in report.notes
    assert "Agent Framework, FileHistoryProvider (sqlite) is not installed." in report.notes


@pytest.mark.parametrize(("kind", "expected"), [("tmpfs", 1), ("ext4", 0)])
def test_files_in_memory_are_warned_of(tmp_path, kind, expected):
    report = small_report(row(1.1, Goal(1.15, "x raw")))
    report.machine["file system"] = kind
    report.save(tmp_path / "report.json")
    shown = CliRunner().invoke(main, ["--show", str(tmp_path / "report.json")]).output
    readme = markdown.into_readme(f"{markdown.BEGIN}{markdown.END}", report)
    for text in (shown, markdown.page(report, CASES, {}), readme):
        assert expected == " ".join(text.split()).count("are in memory (tmpfs)")


def test_a_document_without_markers_is_refused():
    with pytest.raises(markdown.MarkersError, match="There is no place for the table"):
        markdown.into_readme("nothing", small_report())


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.5, "1.5 s"), (0.0123, "12.3 ms"), (0.000_250, "250 µs"), (0.000_001_5, "1.5 µs")],
)
def test_times_have_a_unit_that_fits(value, text):
    assert text == words.seconds(value)


def test_a_peer_is_told_as_a_multiple_of_ours():
    each = row(1)
    assert "Peer 4 ms (2 x)" == words.peer(each, each.figures[2])


def test_the_summary_counts():
    rows = [row(1.1, Goal(1.15, "x")), row(1.2, Goal(1.15, "x")), row(9, Goal(1.15, "x")), row(1)]
    expected = "1 of 3 goals met, 2 below (1 by more than a tenth)"
    assert expected == words.summary(small_report(*rows))


def test_the_command_refuses_what_it_does_not_know():
    for arguments, reason in (
        (["--only", "upsert"], "There is no case 'upsert'. There are: bulk-postgres,"),
        (["--backends", "duck"], "There is no backend 'duck'"),
    ):
        result = CliRunner().invoke(main, arguments)
        assert 2 == result.exit_code
        assert reason in " ".join(result.output.replace("│", " ").split())


def test_the_command_lists_the_cases():
    result = CliRunner().invoke(main, ["--list", "--backends", "sqlite"])
    assert 0 == result.exit_code
    assert "upsert-sqlite: Store 1 KB messages" in result.output
    assert "upsert-postgres" not in result.output


def test_the_command_shows_and_writes_an_earlier_run(tmp_path):
    earlier = tmp_path / "earlier.json"
    small_report(row(1.1, Goal(1.15, "x raw"))).save(earlier)
    page = tmp_path / "new" / "page.md"
    arguments = ["--show", str(earlier), "--markdown", str(page)]
    result = CliRunner().invoke(main, arguments)
    assert (0, None) == (result.exit_code, result.exception)
    assert "1 of 1 goals met" in result.output
    assert "| SQLite: work | 2 ms |" in page.read_text(encoding="utf-8")
