"""director-db as the store of agent frameworks: a module for each, imported by itself.

``from director_db_integrations.openai_agents import DirectorSession`` needs the extra
``director-db-integrations[openai-agents]``, and none of the other frameworks.
"""

from director_db_integrations.version import __version__

__all__ = ["__version__"]
