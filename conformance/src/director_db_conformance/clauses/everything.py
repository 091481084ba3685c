"""All rules at once: random calls, compared with a model of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director_db_conformance.clause import clause
from director_db_conformance.model_machine import compare_with_model

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB, RecordedPlace


class EverythingClauses:
    """The state machine."""

    @clause("ALL")
    def test_all_calls_in_any_order_do_what_the_contract_says(self, db: RecordedDB) -> None:
        """Whatever an application calls, in whatever order, it gets what the contract says."""
        compare_with_model([db], rounds=20, steps=40)

    @clause("ALL", level="concurrent")
    def test_all_calls_on_two_handles_do_what_the_contract_says(self, place: RecordedPlace) -> None:
        """It makes no difference which of two open handles an application calls."""
        compare_with_model([place.open(), place.open()], rounds=14, steps=40, first=20)
