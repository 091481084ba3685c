"""Puts writes of its own tasks on one checkpoint, when it is told to; the arguments are what."""

import sys

from director_db_integrations.langgraph import DirectorSaver


def main(name, count, checkpoint):
    named = {"thread_id": "t1", "checkpoint_ns": "", "checkpoint_id": checkpoint}
    config, saver = {"configurable": named}, DirectorSaver()
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(count)):
        saver.put_writes(config, [("own", [name, number]), ("own", "more")], f"{name}-{number}")
        saver.put_writes(config, [("shared", name)], f"shared-{number}")


if __name__ == "__main__":
    main(*sys.argv[1:])
