"""Plays the story against a database, and checks what the contract promises along the way."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from director_db.checks import now
from director_db.cli.demo import story
from director_db.errors import DirectorDBError, SessionNotFoundError
from director_db.records import DeleteResult, Message

if TYPE_CHECKING:
    from types import TracebackType

    from director_db.base import BaseDB

PRIVATE_PLACE: Final = ":memory:"
"""The place of a database that its own process alone can see."""

_READER_PATIENCE: Final = 60.0
_STORY_SECONDS: Final = 60
_PAGE: Final = 2


class Check(NamedTuple):
    """One promise, with what it means here and what came out."""

    rule: str
    claim: str
    expected: Any
    actual: Any
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether it holds; a skipped check shows nothing and refutes nothing."""
        # As text, since 1 == 1.0 == True, 0.0 == -0.0, and dicts are equal in any order of keys.
        return bool(self.skipped) or repr(self.expected) == repr(self.actual)


class Streamed(NamedTuple):
    """The answer as it was read back after one of its writes; ``{}`` and place 0 if it was not."""

    message: dict[str, Any]
    place: int
    total: int


class Reopened(NamedTuple):
    """The conversation, and the process that read it: None for this one."""

    session_id: str
    conversation: list[Message]
    reader: int | None


class Page(NamedTuple):
    """The arguments of a read, and the ids of the messages that it gave."""

    asked: str
    msg_ids: list[str]


class Step(NamedTuple):
    """A call and what came of it."""

    call: str
    outcome: str


class Play:
    """The demo's sessions from their creation to their removal; a context manager."""

    def __init__(self, db: BaseDB, db_type_or_url: str | None) -> None:
        """Choose ids that nobody else has; nothing is stored yet."""
        self.checks: list[Check] = []
        self._db = db
        self._db_type_or_url = db_type_or_url
        self._started = now() - _STORY_SECONDS
        self._collection = f"demo-{secrets.token_hex(8)}"
        self._session = f"demo-{secrets.token_hex(8)}"
        self._other = f"demo-{secrets.token_hex(8)}"
        self._conversation: list[dict[str, Any]] = []
        self._context: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for session_id in (self._session, self._other):
                self._db.delete_session(session_id)
        except DirectorDBError as failure:
            message = (
                f"The demo's sessions {self._session} and {self._other} may still be stored, as "
                f"removing them failed: {failure}"
            )
            raise DirectorDBError(message) from failure
        if error is None:
            left = self._db.get_sessions(collection_id=self._collection)
            self._check("DEL-2", "Nothing of this demo is left in the database", [], left)

    def create_sessions(self) -> None:
        """Create the session of the story, create it once more, and create a second one."""
        session: dict[str, Any] = {
            "session_id": self._session,
            "video_id": story.VIDEO,
            "collection_id": self._collection,
            "created_at": self._started,
            "updated_at": self._started,
            "metadata": story.SESSION_METADATA,
            "user_id": story.USER,
        }
        self._db.create_session(**session)
        self._db.create_session(self._session, "another.mp4", metadata={"title": "Another"})
        stored = self._db.get_session(self._session)
        kept = {name: stored.get(name) for name in session}
        self._check("SES-2", "Creating a session again changed nothing", session, kept)
        self._check(
            "VAL-1",
            "Values came back exactly: order of keys, 2520.0, -0.0, U+0000",
            story.SESSION_METADATA,
            stored.get("metadata"),
        )
        self._db.create_session(
            self._other,
            story.OTHER_VIDEO,
            self._collection,
            created_at=self._started - 10,
            updated_at=self._started - 10,
        )

    def stream_answer(self) -> list[Streamed]:
        """Write one answer several times while it grows, and a question in the midst of it."""
        question = story.first_question(self._started)
        interruption = story.second_question(self._started)
        self._write(self._session, question)
        asked, answered = self._started, self._started + 3
        seen: list[Streamed] = []
        for number, write in enumerate(story.ANSWER):
            message = story.streamed_answer(write, answered, answered + 4 * number)
            if number:
                # The first write sets it, and no later one gives it again (MSG-2).
                del message["created_at"]
            self._write(self._session, message)
            seen.append(self._read_answer())
            if number == 1:
                self._write(self._session, interruption)
        final = story.streamed_answer(story.ANSWER[-1], answered, answered + 4 * number)
        self._conversation = [question, final, interruption]
        writes = len(story.ANSWER)
        self._check(
            "MSG-1",
            f"{writes} writes of one answer are one message, in its last form",
            self._as_stored(self._session, self._conversation),
            self._db.get_conversations(self._session),
        )
        self._check(
            "MSG-3",
            "The answer kept its place and created_at through all its writes",
            [(2, answered)] * writes,
            [(streamed.place, streamed.message.get("created_at")) for streamed in seen],
        )
        self._check(
            "SES-6",
            "The session's updated_at is that of its last message",
            (asked, final["updated_at"]),
            self._times(self._session),
        )
        return seen

    def go_on(self) -> None:
        """Store the other messages in one bulk write, and some in the second session."""
        more = story.rest(self._started)
        self._db.add_or_update_msgs_to_conv(self._session, more)
        self._conversation += more
        foreign = {**more[-1], "msg_id": "answer-1", "updated_at": self._started + 20}
        self._write(self._other, foreign)
        listed = [self._listed()]
        foreign = {**foreign, "content": [], "updated_at": self._started + 50}
        self._write(self._other, foreign)
        listed.append(self._listed())
        self._check(
            "MSG-4",
            'A write to "answer-1" of one session left the other one alone',
            (
                self._as_stored(self._session, self._conversation),
                self._as_stored(self._other, [foreign]),
            ),
            (
                self._db.get_conversations(self._session),
                self._db.get_conversations(self._other),
            ),
        )
        self._check(
            "SES-4",
            "Sessions are listed by last activity: a write moved one to the top",
            [[self._session, self._other], [self._other, self._session]],
            listed,
        )

    def grow_context(self) -> list[tuple[int, list[str]]]:
        """Add the model's turns to the context; return each new length with the roles added."""
        turns = story.context_growth()
        grown = []
        for turn in turns:
            length = self._db.append_context_messages(self._session, turn)
            self._context += turn
            grown.append((length, [message["role"] for message in turn]))
        self._check(
            "CTX-4",
            f"The context grew to {len(self._context)} messages, by appending alone",
            ([2, 4, 5], {"reasoning": self._context}),
            ([length for length, _ in grown], self._db.get_context_messages(self._session)),
        )
        return grown

    def reopen(self) -> Reopened:
        """Let a second process read the session back, and compare."""
        session = self._db.get_session(self._session)
        conversation = self._db.get_conversations(self._session)
        expected = {
            "session": session,
            "conversation": self._as_stored(self._session, self._conversation),
            "context": {"reasoning": self._context},
        }
        claim = "A second process read session, conversation and context: all equal"
        if self._db.place == PRIVATE_PLACE:
            reason = "kept in memory, where no second process can see it"
            self.checks.append(Check("LIF-1", claim, expected, None, skipped=reason))
            return Reopened(self._session, conversation, None)
        answer = self._ask_second_process()
        reader = answer.pop("process", None)
        self._check("LIF-1", claim, expected, answer)
        # What the reader saw is what is shown; where it saw nothing, the check says so.
        return Reopened(self._session, answer.get("conversation", conversation), reader)

    def page(self) -> list[Page]:
        """Read the conversation backwards page by page, and what is new since a message."""
        pages: list[Page] = []
        walked: list[str] = []
        before: str | None = None
        everything = [message["msg_id"] for message in self._conversation]
        # One page more than there are: the walk ends by itself, or the check below fails.
        for _ in range(0, len(everything) + _PAGE, _PAGE):
            msg_ids = self._ids(limit=_PAGE, before=before)
            if not msg_ids:
                break
            asked = f"limit={_PAGE}" + (f', before="{before}"' if before else "")
            pages.append(Page(asked, msg_ids))
            walked = msg_ids + walked
            before = msg_ids[0]
        pages.append(Page('after="answer-2"', self._ids(after="answer-2")))
        known = everything.index("answer-2") + 1
        self._check(
            "MSG-6",
            f"Pages of {_PAGE} gave each message once, and after= gave what was new",
            (everything, everything[known:]),
            (walked, pages[-1].msg_ids),
        )
        return pages

    def delete(self) -> list[Step]:
        """Delete the session, twice, and let a worker's write come late."""
        first = self._db.delete_session(self._session)
        steps = [Step("delete_session", _outcome(first))]
        parts = (
            self._db.get_session(self._session),
            self._db.get_conversations(self._session),
            self._db.get_context_messages(self._session),
        )
        self._check(
            "DEL-2",
            "Deleting the session took its messages and its context with it",
            (DeleteResult(success=True, failed_components=[]), ({}, [], {})),
            (first, parts),
        )
        late = self._write_late()
        steps.append(Step("add_or_update_msg_to_conv", late))
        self._check(
            "MSG-5",
            "A late write did not bring the deleted session back",
            ("SessionNotFoundError", {}, []),
            (
                late,
                self._db.get_session(self._session),
                self._db.get_conversations(self._session),
            ),
        )
        again = self._db.delete_session(self._session)
        steps.append(Step("delete_session again", _outcome(again)))
        self._check(
            "DEL-2",
            "Deleting it again found nothing, and the other session stayed",
            (DeleteResult(False, ["conversation", "context", "session"]), [self._other]),  # noqa: FBT003
            (again, self._listed()),
        )
        return steps

    # --- Shared by the acts ---------------------------------------------------------------------

    def _check(self, rule: str, claim: str, expected: object, actual: object) -> None:
        self.checks.append(Check(rule, claim, expected, actual))

    def _write(self, session_id: str, message: dict[str, Any]) -> None:
        self._db.add_or_update_msg_to_conv(session_id, **message)

    def _write_late(self) -> str:
        try:
            self._write(self._session, story.second_question(self._started))
        except SessionNotFoundError:
            return SessionNotFoundError.__name__
        return "stored"

    def _read_answer(self) -> Streamed:
        message = dict(self._db.get_message(self._session, "answer-1"))
        msg_ids = self._ids()
        place = msg_ids.index("answer-1") + 1 if "answer-1" in msg_ids else 0
        return Streamed(message, place, len(msg_ids))

    def _ids(self, **page: Any) -> list[str]:
        return [m["msg_id"] for m in self._db.get_conversations(self._session, **page)]

    def _listed(self) -> list[str]:
        sessions = self._db.get_sessions(collection_id=self._collection)
        return [session["session_id"] for session in sessions]

    def _times(self, session_id: str) -> tuple[object, object]:
        session = self._db.get_session(session_id)
        return session.get("created_at"), session.get("updated_at")

    @staticmethod
    def _as_stored(session_id: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"session_id": session_id, **message, "revision": None} for message in messages]

    def _ask_second_process(self) -> dict[str, Any]:
        """Return what a second process read; a dict with an error if it failed."""
        environment = dict(os.environ)
        if self._db_type_or_url is not None:
            # Not as an argument: every user of the machine sees those, and a URL has a password.
            environment["DB_TYPE"] = self._db_type_or_url
        try:
            done = subprocess.run(  # noqa: S603 - this interpreter, and a module of ours
                # -P: a file named json.py in the working folder must not be imported.
                [sys.executable, "-P", "-m", f"{__package__}.second_process", self._session],
                env=environment,
                capture_output=True,
                timeout=_READER_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            return {"error": f"the second process did not run: {failure}"}
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            return {"error": lines[-1] if lines else f"exit status {done.returncode}"}
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def _outcome(result: DeleteResult) -> str:
    return f"{result.success}, {result.failed_components}"
