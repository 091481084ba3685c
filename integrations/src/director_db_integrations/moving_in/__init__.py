"""What ``director-db import`` reads: the tables of the frameworks' own stores.

A module for each framework. It needs only the tables and not the framework, unless that alone can
read what is in them. The entry points of the group ``director_db_import`` name their sources.
"""
