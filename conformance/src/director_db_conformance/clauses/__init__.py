"""The clauses, one file for each family of rules; ``MSG-3`` stands in ``messages.py``.

A family that is long has files of its own for a part: ``MSG-6`` stands in ``messages_paging.py``.
What many callers do at once is in ``messages_at_once.py``, and in ``processes_at_once.py`` if it
takes other processes.
"""

from __future__ import annotations

from typing import Final

from director_db_conformance.clauses.context import ContextClauses
from director_db_conformance.clauses.context_appending import ContextAppendingClauses
from director_db_conformance.clauses.context_list import ContextListClauses
from director_db_conformance.clauses.context_versions import ContextVersionClauses
from director_db_conformance.clauses.contexts_at_once import ContextsAtOnceClauses
from director_db_conformance.clauses.copying import CopyingClauses
from director_db_conformance.clauses.coroutines import CoroutineClauses
from director_db_conformance.clauses.deleting import DeletingClauses
from director_db_conformance.clauses.deleting_at_once import DeletingAtOnceClauses
from director_db_conformance.clauses.durability import DurabilityClauses
from director_db_conformance.clauses.everything import EverythingClauses
from director_db_conformance.clauses.faults import FaultClauses
from director_db_conformance.clauses.forks import ForkClauses
from director_db_conformance.clauses.history import HistoryClauses
from director_db_conformance.clauses.history_at_once import HistoryAtOnceClauses
from director_db_conformance.clauses.iterating import IterationClauses
from director_db_conformance.clauses.life import LifeClauses
from director_db_conformance.clauses.life_at_once import LifeAtOnceClauses
from director_db_conformance.clauses.life_visibility import VisibilityClauses
from director_db_conformance.clauses.messages import MessageClauses
from director_db_conformance.clauses.messages_at_once import MessagesAtOnceClauses
from director_db_conformance.clauses.messages_bulk import MessageBulkClauses
from director_db_conformance.clauses.messages_guarded import GuardedMessageClauses
from director_db_conformance.clauses.messages_paging import MessagePagingClauses
from director_db_conformance.clauses.messages_part import MessagePartClauses
from director_db_conformance.clauses.processes_at_once import ProcessesAtOnceClauses
from director_db_conformance.clauses.session_versions import SessionVersionClauses
from director_db_conformance.clauses.sessions import SessionClauses
from director_db_conformance.clauses.sessions_at_once import SessionsAtOnceClauses
from director_db_conformance.clauses.sessions_listing import SessionListingClauses
from director_db_conformance.clauses.values import ValueClauses
from director_db_conformance.clauses.values_ownership import OwnershipClauses
from director_db_conformance.clauses.values_payloads import PayloadClauses
from director_db_conformance.clauses.values_refused import RefusedPayloadClauses

# In this order they run, level by level.
ALL_CLAUSES: Final[tuple[type, ...]] = (
    SessionClauses,
    SessionListingClauses,
    CopyingClauses,
    SessionVersionClauses,
    MessageClauses,
    MessagePagingClauses,
    MessageBulkClauses,
    GuardedMessageClauses,
    HistoryClauses,
    IterationClauses,
    MessagePartClauses,
    ContextClauses,
    ContextAppendingClauses,
    ContextListClauses,
    ContextVersionClauses,
    DeletingClauses,
    ValueClauses,
    OwnershipClauses,
    PayloadClauses,
    RefusedPayloadClauses,
    LifeClauses,
    VisibilityClauses,
    SessionsAtOnceClauses,
    MessagesAtOnceClauses,
    HistoryAtOnceClauses,
    ContextsAtOnceClauses,
    DeletingAtOnceClauses,
    LifeAtOnceClauses,
    CoroutineClauses,
    ProcessesAtOnceClauses,
    ForkClauses,
    EverythingClauses,
    DurabilityClauses,
    FaultClauses,
)
