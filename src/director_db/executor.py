"""Threads that run calls for coroutines, one small pool for each instance.

Not `concurrent.futures`: its threads are joined when the interpreter ends, also one that waits for
a database, they are dead in a forked child, and a call that waits there runs although nobody waits
for it any more. And not the event loop's default executor: it has a few threads for everything that
an application does, and callers who wait there cannot share a commit.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections import Counter, deque
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from director_db import lifecycle
from director_db.errors import BackendUnavailableError
from director_db.job import NO_THREAD, Job, is_waited_for, no_thread, no_turn, nothing, take_late
from director_db.payload import take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

THREADS: Final = 32
"""So many calls run at once. With more, commits were shared by no more; with fewer, by fewer."""

MOST_THREADS: Final = 512
"""So many run where all others have waited for `STUCK` seconds, for a lock of somebody else."""

MOST_OF_A_SESSION: Final = 8
"""So many of one session run then: what waits for its lock leaves threads to all other sessions."""

MOST_WRITES: Final = MOST_THREADS - THREADS
"""So many writes run then: what waits for the locks of all sessions leaves threads to reads."""

STUCK: Final = 0.1
"""After so many seconds in which no call began, while some waited, there are more threads."""

_IDLE: Final = 5.0  # Seconds after which a thread without work ends.

_TOGETHER: Final = object()  # In the place of a session: messages that are stored together.

J = TypeVar("J", bound=Job)
K = TypeVar("K", bound=Job)


class Executor(Generic[J]):
    """A few daemon threads, started as they are needed, that end when they are not."""

    def __init__(
        self,
        name: str,
        run_together: Callable[[Executor[J]], None],
        patience: float,
        is_closed: Callable[[], bool],
    ) -> None:
        """Start no thread yet.

        Args:
            name: what the threads are called.
            run_together: runs jobs in one thread, those that it gets from `take_gathered`, which
                it asks once at least. It raises nothing.
            patience: for how many seconds a call waits for a thread at most.
            is_closed: whether any call that begins now ends at once, with an error that says so.
        """
        self._name = name
        self._run_together = run_together
        self._patience = patience
        self._is_closed = is_closed
        self._reset()
        lifecycle.survive_forks(self)

    def _reset(self) -> None:
        take_turns()
        # In the middle of a thread that has it, a collection of garbage may run what is left of a
        # coroutine, and a signal's handler may fork.
        self._lock = threading.RLock()
        self._waiting: deque[Job] = deque()
        # Those that have begun in another thread, and go on before any other begins.
        self._unfinished: deque[Job] = deque()
        # Those to be run together, and whether a thread is on its way to them.
        self._gathered: deque[J] = deque()
        self._is_coming = False
        # Those of a session of which enough run, if there are more threads than `THREADS`.
        self._held_back: dict[Hashable, deque[Job]] = {}
        # Those that work, and those that are being started; each with whose call it runs.
        self._threads: dict[threading.Thread, Hashable] = {}
        # The last to fall asleep is the first to be woken, so that a few do all there is to do.
        self._asleep: list[threading.Lock] = []
        self._most = THREADS
        self._begun = 0
        self._watched = False

    def submit(self, job: Job) -> None:
        """Let a thread run a job; first come, first served, but first those that have begun.

        Where there is no thread, and the system starts none, all jobs that wait are told so.
        """
        thread = None
        is_in = are_busy = False
        job.until = inf if job.session is _TOGETHER else time.monotonic() + self._patience
        try:
            with self._lock:
                (self._unfinished if job.has_begun else self._waiting).append(job)
                is_in = True
                if self._asleep:
                    self._asleep.pop().release()
                elif len(self._threads) < self._most:
                    thread = self._thread(self._work)
                    self._threads[thread] = None
                else:
                    are_busy = True
            if thread is not None:
                thread.start()
            elif are_busy and not self._watched:
                self._start_watching()
        except BaseException as error:
            if thread is not None and not thread.is_alive():
                self._threads.pop(thread, None)
            if not is_in or not isinstance(error, NO_THREAD):
                self.withdraw(job)  # By a signal's handler: nobody waits for it.
                raise
            self._fail_without_a_thread(error)

    def _fail_without_a_thread(self, error: BaseException) -> None:
        with self._lock:
            if self._threads:
                return  # Those that there are do it.
            lost: list[Job] = [*self._waiting, *self._gathered, *chain(*self._held_back.values())]
            for waiting in (self._waiting, self._gathered, self._held_back):
                waiting.clear()
            self._is_coming = False
        for job in lost:
            job.error = no_thread(error)
            job.done()

    def submit_together(self, job: J) -> None:
        """Let a thread run a job together with those that wait when it comes; see `submit`."""
        try:
            job.until = time.monotonic() + self._patience
            with self._lock:
                self._gathered.append(job)
            self.send_for_gathered()
        except BaseException:
            self.withdraw(job)
            self.send_for_gathered()  # Somebody may have come meanwhile, and sent for nobody.
            raise

    def send_for_gathered(self) -> None:
        """See to it that a thread is on its way to those that are to be run together."""
        try:
            with self._lock:
                if self._is_coming or not self._gathered:
                    return
                self._is_coming = True
            # They are of several callers, so it runs in the context of none.
            self.submit(Job(self._work_together, nothing, contextvars.Context(), _TOGETHER))
        except BaseException:
            self._is_coming = False  # One thread too many comes, perhaps, and finds nothing to do.
            raise

    def _work_together(self) -> None:
        self._is_coming = False  # First: who comes from here on sends for another one.
        while self._gathered:
            self._run_together(self)

    def take_gathered(self) -> J | None:
        """Take the next of those that are to be run together; it has begun."""
        with self._lock:
            return self._take(self._gathered)

    def run_as_its_own(self, job: J) -> None:
        """Run a job that was taken and has nothing to share, in this thread, as one of its session.

        Where there are more threads than usual it waits as others of that do.
        """
        thread = threading.current_thread()
        with self._lock:
            is_usual = len(self._threads) <= THREADS
            if is_usual:
                self._threads[thread] = job.session
        if not is_usual:
            self.give_back(job)
            return
        job.run()
        with self._lock:
            self._threads[thread] = _TOGETHER

    def give_back(self, job: J) -> None:
        """Let a job that was taken, and for which nothing was done, begin by itself.

        One that was withdrawn meanwhile ends without having begun.
        """
        done = job.done
        try:
            with self._lock:
                job.has_begun = False
                is_withdrawn = job.is_withdrawn
            if is_withdrawn:
                done()
            else:
                self.submit(job)
        except BaseException as error:
            job.error = error
            done()
            raise

    def withdraw(self, job: Job) -> bool:
        """Let a job never begin; False if it has begun."""
        with self._lock:
            return job.withdraw()

    def run_apart(self, job: Job) -> None:
        """Run a job in a thread of its own, at once, however many wait.

        Raises:
            BackendUnavailableError: the system starts no thread.
        """
        job.has_begun = True
        try:
            self._thread(job.run).start()
        except NO_THREAD as error:
            raise no_thread(error)  # noqa: B904 - it has its cause

    def _thread(self, target: Callable[[], object]) -> threading.Thread:
        return threading.Thread(target=target, name=self._name, daemon=True)

    def _take(self, waiting: deque[K]) -> K | None:
        while waiting:
            job = waiting.popleft()
            if not job.is_withdrawn:
                job.has_begun = True
                self._begun += 1
                return job
        return None

    def _work(self) -> None:
        thread = threading.current_thread()
        self._threads[thread] = None  # Who started it may have been struck, and taken it off.
        try:
            self._run_what_waits(thread)
        finally:
            self._threads.pop(thread, None)

    def _left(self) -> Callable[[Hashable], int]:
        """Return what tells how many more calls of a session may run; None is that of reads."""
        # Of a copy: a thread that ends takes itself off without the lock.
        running = Counter(list(self._threads.values()))
        writes = MOST_WRITES - (running.total() - running[None])

        def left(session: Hashable) -> int:
            if session is None:
                return MOST_THREADS
            own = MOST_THREADS if session is _TOGETHER else MOST_OF_A_SESSION - running[session]
            return max(0, min(writes, own))

        return left

    def _take_waiting(self) -> Job | None:
        """Take the next job, of a session of which not too many run."""
        if len(self._threads) <= THREADS and not self._held_back:
            return self._take(self._waiting)  # First, as it is nearly always so.
        left = self._left() if len(self._threads) > THREADS else lambda _: THREADS
        while (session := next(filter(left, self._held_back), None)) is not None:
            job = self._take(self._held_back[session])
            if not self._held_back[session]:
                del self._held_back[session]
            if job is not None:
                return job
        while is_waited_for(self._waiting) and not left(session := self._waiting[0].session):
            self._held_back.setdefault(session, deque()).append(self._waiting.popleft())
        if self._held_back and not self._watched:
            with contextlib.suppress(*NO_THREAD):
                self._start_watching()
        return self._take(self._waiting)

    def _run_what_waits(self, thread: threading.Thread) -> None:
        wake = threading.Lock()
        wake.acquire()
        while True:
            with self._lock:
                self._threads[thread] = None
                job = self._take(self._unfinished)
                # What begins in a fork is held back by the instance, with its thread.
                if job is None and not lifecycle.forks:
                    job = self._take_waiting()
                if job is None:
                    if len(self._threads) > THREADS:  # There were more for a while.
                        self._threads.pop(thread)
                        return
                    self._asleep.append(wake)
                else:
                    self._threads[thread] = job.session
            if job is not None:
                job.run()
                # Not under the lock: what it holds may be long, or end with a caller's code.
                del job
            elif not wake.acquire(timeout=_IDLE):
                with self._lock:
                    if wake in self._asleep:
                        self._asleep.remove(wake)
                        if not self._waiting and not self._held_back:
                            self._threads.pop(thread)
                            return
                # Somebody has woken it this very moment, or was struck before.
                wake.acquire(blocking=False)

    def _start_watching(self) -> None:
        with self._lock:
            if self._watched:
                return
            self._watched = True
        try:
            self._thread(self._watch).start()
        except BaseException:
            self._watched = False
            raise

    def _watch(self) -> None:
        """Start more threads for as long as calls wait and none begins."""
        try:
            begun = -1
            while True:
                more: list[threading.Thread] = []
                self._end_late()
                with self._lock:
                    waiting = self._unfinished, self._waiting, *self._held_back.values()
                    if not any(map(is_waited_for, waiting)):
                        self._watched = False
                        self._most = THREADS
                        return
                    # The threads of a locked session are lost to others, who begin on the rest.
                    if self._begun == begun or self._held_back:
                        more = [self._thread(self._work) for _ in range(self._missing())]
                        self._threads.update(dict.fromkeys(more))
                        before = self._most if self._held_back else 0
                        self._most = max(THREADS, len(self._threads), before)
                    begun = self._begun
                for thread in more:
                    try:
                        thread.start()
                    except NO_THREAD:
                        self._threads.pop(thread, None)
                time.sleep(STUCK)
        except BaseException:
            self._watched = False
            raise

    def _end_late(self) -> None:
        """End the calls that have waited for a thread for as long as a call waits at most."""
        while (job := self._take_late()) is not None:
            try:
                if self._is_closed():
                    self.run_apart(job)  # Which says that.
                    continue
                job.error = no_turn()
            except BackendUnavailableError as error:
                job.error = error
            job.done()

    def _take_late(self) -> Job | None:
        now = time.monotonic()
        with self._lock:
            left, is_full = self._left(), len(self._threads) >= MOST_THREADS
            late: list[deque[Any]] = [self._waiting] if is_full else []
            if self._is_coming and (is_full or not left(_TOGETHER)):
                late.append(self._gathered)
            late += [jobs for session, jobs in self._held_back.items() if not left(session)]
            return next(filter(None, (take_late(jobs, now) for jobs in late)), None)

    def _may_begin(self) -> int:
        """How many of those that were held back need not be any more."""
        left = self._left()
        return sum(min(len(waiting), left(each)) for each, waiting in self._held_back.items())

    def _missing(self) -> int:
        """How many more threads there are to be."""
        left = MOST_THREADS - len(self._threads)
        if not lifecycle.forks:
            waiting = len(self._unfinished) + len(self._waiting) + self._may_begin()
            return min(THREADS, waiting, left)
        # The fork waits for these, however many threads are held back by it.
        return min(THREADS, len(self._unfinished), max(1, left))

    # --- Forks ------------------------------------------------------------------------------------

    def _before_fork(self, deadline: float) -> None:
        """Nothing: the instance waits for what has begun, and holds back what begins."""

    def _after_fork_in_parent(self) -> None:
        with self._lock:
            for _ in range(min(len(self._waiting) + self._may_begin(), len(self._asleep))):
                self._asleep.pop().release()

    def _after_fork_in_child(self) -> None:
        self._reset()  # The threads are the parent's, and so are the calls that wait.
