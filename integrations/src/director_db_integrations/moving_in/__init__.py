"""What ``director-db import`` reads: the tables of the frameworks' own stores.

A module for each framework, which needs only the tables and not the framework. The entry points of
the group ``director_db_import`` name their sources.
"""
