"""What ours is compared with: the bare drivers' encoder, and the pages of a table."""

from __future__ import annotations

import json

from benchmarks import large
from benchmarks.bench import open_ours
from benchmarks.cases.sessions import pages
from benchmarks.payloads import PAGE
from benchmarks.raw.store import encode


def test_the_raw_encoder_is_made_once(monkeypatch):
    made = []
    real = json.encoder.c_make_encoder

    def counting(*arguments):
        made.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(json.encoder, "c_make_encoder", counting)
    assert '{"a":[1,2.5,null,"ü"]}' == encode({"a": [1, 2.5, None, "ü"]})
    assert [] == made


def test_a_page_of_sessions_begins_in_the_middle_of_its_list(tmp_path):
    count = 40 * PAGE
    path = str(tmp_path / "sessions.db")
    with open_ours("sqlite", path) as db:
        db.health()
        large.add_sessions("sqlite", path, 0, count)
        page = pages(db, count)
        for name, chosen in (
            ("of all", {}),
            ("of one video", {"video_id": "v7"}),
            ("of one collection", {"collection_id": "c3"}),
        ):
            whole = db.get_sessions(**chosen)
            half = len(whole) // 2
            assert whole[:PAGE] == page[f"{name}, first"]()
            assert whole[half : half + PAGE] == page[f"{name}, middle"]()
