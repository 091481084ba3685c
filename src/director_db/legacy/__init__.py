"""What the system before director-db left behind; no concern of a new backend.

`old_layout` tells its tables and converts their rows. The backends of the databases that it used,
SQLite and Postgres, have an `old_layout` of their own and are `migrates.Migrates`.
"""
