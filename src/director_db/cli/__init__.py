"""The ``director-db`` command: what an operator does with the database of an application.

A command is a function that returns its exit status and lets errors pass; `main` makes one line of
each. Whatever is not needed for ``--help`` is imported inside the command that needs it.
"""

from director_db.cli.group import command
from director_db.cli.program import main

__all__ = ["command", "main"]
