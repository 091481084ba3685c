"""``python -m director_db.cli`` is ``director-db``."""

import sys

from director_db.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
