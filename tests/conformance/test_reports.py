"""What a report tells of a fault: the fault, and not what followed from it."""

from __future__ import annotations

import json

import pytest

from director_db_conformance.expectation import NonconformityError
from director_db_conformance.transcript import shown_error, shown_output
from director_db_conformance.unexpected import nonconformity

pytestmark = pytest.mark.sampled

WATCHED = {
    "test_msg_7_another_process_sees_no_part_of_a_bulk",
    "test_ctx_3_another_process_sees_no_part_of_a_save",
    "test_del_2_another_process_sees_no_part_of_a_delete",
    "test_lif_4_threads_and_processes_open_a_new_place_at_once",
}
STALE = (
    "test_msg_2_created_at_survives_an_update",
    "test_lif_1_both_sides_of_a_fork_write_at_once",
)


@pytest.fixture
def failures(conformance, tmp_path):
    def run(db_type, *names):
        keyword = " or ".join(names)
        done = conformance(db_type, "-k", keyword, "--json=o.json")
        assert 1 == done.returncode, done.stderr
        (backend,) = json.loads((tmp_path / "o.json").read_text())["backends"]
        found = {
            entry["clause"]: entry["result"]
            for entry in backend["clauses"]
            if entry["result"]["outcome"] == "failed"
        }
        assert {*names} == {*found}
        return found, done.stdout

    return run


def test_what_another_process_said_is_told(failures):
    """And not that its pipes were closed when the clause cleaned up."""
    found, report = failures("stranger", *WATCHED)
    for result in found.values():
        assert result["expected"] in {
            "another process ends without an error",
            "another process looks before anything happens",
        }
        assert result["actual"].startswith("status ")
        # The line of the code that another process ran, the message whole at both ends.
        assert "BackendUnavailableError: It is damaged. Mend it. " in result["actual"]
        assert result["actual"].endswith("Mend it. (code 11)")
        assert "sqlite3.OperationalError: database disk image is malformed" in result["actual"]
    assert "closed file" not in report
    assert "(code 11)" in report
    saves = found["test_ctx_3_another_process_sees_no_part_of_a_save"]["actual"]
    assert '    ended, last = last, bool(db.get_session("end"))' in saves


def test_a_stale_read_is_told_as_what_it_returned(failures):
    """And not as the exception that looking for a key in it raised."""
    found, report = failures("stale", *STALE)
    plain, forked = (found[name] for name in STALE)
    assert 'a result to go on with: db.get_message("s1", name)["created_at"]' == plain["expected"]
    assert plain["actual"].startswith("db.get_message('s1', ")
    assert plain["actual"].endswith(")  -> {}; so KeyError: 'created_at'")
    assert "db.get_message('s1', " in forked["actual"]
    assert "  -> {}; so KeyError: 'msg_id'" in forked["actual"]
    assert 'a result to go on with: record["msg_id"]' in forked["expected"]
    assert "raised KeyError" not in report


def test_the_end_of_a_message_and_its_cause_are_told(failures):
    name = "test_del_1_deletes_all_messages"
    found, report = failures("damaged", name)
    cause = "(from OperationalError: database disk image is malformed)"
    assert "no error" == found[name]["expected"]
    assert found[name]["actual"].startswith("raised BackendUnavailableError: It is damaged. Mend")
    assert found[name]["actual"].endswith(f"Mend it. (code 11) {cause}")
    assert f"(code 11) {cause}" in report
    assert "in _delete_messages" in found[name]["traceback"]


def test_what_failed_first_is_the_fault():
    fault = NonconformityError("this", "that")

    def clean_up_badly():
        try:
            raise fault
        finally:
            {}["cleaning up"]

    with pytest.raises(KeyError) as shadow:
        clean_up_badly()
    assert nonconformity(shadow.value) is fault


def test_of_what_is_long_the_middle_is_left_out():
    text = shown_error(ValueError(f"first{' ' * 5000}last"))
    assert text.startswith("ValueError: first")
    assert text.endswith("last")
    assert len(text) < 700
    output = shown_output("\n".join([*map(str, range(100)), f"first{' ' * 5000}last"]))
    assert output.startswith("61\n62\n")
    assert output.endswith("last")
