import pytest

from director_db_conformance import dsn


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("host=h port=1 user=u dbname=d", "postgresql://u@h:1/d"),
        ("postgresql://u:p@h:1/d", "postgresql://u:p@h:1/d"),
        (
            "postgresql://u:p%40%2F%3A@h:1/d?connect_timeout=3",
            "postgresql://u:p%40%2F%3A@h:1/d?connect_timeout=3",
        ),
        ("host=::1 dbname=d", "postgresql://[::1]/d"),
        ("host=/run/pg dbname='a b'", "postgresql://%2Frun%2Fpg/a%20b"),
    ],
)
def test_any_form_becomes_a_url(given, expected):
    assert dsn.url(dsn.parts(given)) == expected
    assert dsn.parts(expected) == dsn.parts(given)


def test_parts_can_be_replaced():
    changed = dsn.replace("postgresql://u:p@h:1/d", host="x,y", port="2,3", dbname="e/f")
    assert changed == "postgresql://u:p@x:2,y:3/e%2Ff"
    assert dsn.parts(changed)["dbname"] == "e/f"
