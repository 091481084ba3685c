"""What people may see of a message."""

from __future__ import annotations

import pytest

from director_db.cli.printable import one_line, visible


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Choose another file.", "Choose another file."),
        ("first\n  second\r\n", "first second"),
        ("postgresql://ann:pa55@host/name", "postgresql://ann:***@host/name"),
        ("'postgresql://ann:p@a:5/5@host/name' failed", "'postgresql://ann:***@host/name' failed"),
        ("postgresql://:pa55@host", "postgresql://:***@host"),
        ("postgresql://ann@host:5432/name", "postgresql://ann@host:5432/name"),
        ("postgres:ann:pa55@host", "postgres:***@host"),
        ("host=h password=pa55 port=1", "host=h password=*** port=1"),
        ("host=h password='pa 5\\'5' port=1", "host=h password=*** port=1"),
        ("password = 'pa55", "password = ***"),
        ('password="pa 55"', "password=***"),
        ("password=pa\\ 55 port=1", "password=*** port=1"),
        ("host=h password=pa&55 port=1", "host=h password=*** port=1"),
        ("mysql://h/d?ssl_password=pa55&a=b", "mysql://h/d?ssl_password=***&a=b"),
        ("at /srv/app.db: 3 of 4", "at /srv/app.db: 3 of 4"),
        ("bell\x07 and \x1b[2J", "bell\\x07 and \\x1b[2J"),
    ],
)
def test_one_line(message, shown):
    assert one_line(message) == shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("invalid port: 'pa55@b'", "invalid port: '***'"),
        ("invalid port: 'pa55'", "invalid port: '***'"),
        ("pa55word stays", "pa55word stays"),
    ],
)
def test_pieces_of_a_url_that_was_given(message, shown):
    assert one_line(message, ["postgresql://ann:pa55@b@host"]) == shown


def test_a_url_in_the_environment(monkeypatch):
    monkeypatch.setenv("SOME_URL", "postgresql://ann:pa%2055@host")
    assert one_line("neither 'pa 55' nor 'pa%2055'") == "neither '***' nor '***'"


def test_a_password_that_is_the_name_of_the_user_is_no_secret():
    assert one_line("no role postgres", ["db://postgres:postgres@host"]) == "no role postgres"


def test_undecodable_bytes_of_a_path_are_shown():
    assert visible("a\udcffb") == "a\\udcffb"
