"""Broken backends that prove the conformance suite: each makes a mistake that people make.

A mutant is a class that says which rule it breaks and, in its docstring, how people come to do
that; the suite has to catch it, and at the latest at the mutant's level. Those of SQLite are in
`gallery.mutants`, in the file of the family of their rule; those of the asynchronous face in
`gallery.face`; those of Postgres, for what can be done wrong with a server alone, in
`gallery.postgres`, in the file of the part that they break::

    class NewestFirst(BrokenDB, rule="MSG-6"):
        \"\"\"The page is read backwards for its limit and never turned round.\"\"\"

        def _select_messages(self, query):
            rows = super()._select_messages(query)
            return rows and rows[::-1]

All have one DB type, ``mutant``; the environment variable ``DIRECTOR_DB_MUTANT`` names the one that
is meant, so child processes open the same. What a mutant does to the core it does in its own
process: each trial has one.

``python tests/gallery/run.py`` tries all of them and shows which clause killed which.
"""
