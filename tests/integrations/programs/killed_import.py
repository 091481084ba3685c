"""``director-db import`` that kills itself before its fourth write of messages."""

import os
import signal
import sys

from director_db.cli import main
from director_db_integrations.moving_in.importing import Importing

put = Importing.put
WRITES = []


def put_or_die(self, messages):
    WRITES.append(messages)
    if len(WRITES) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, messages)


Importing.put = put_or_die
sys.exit(main(["import", *sys.argv[1:]]))
