"""What the programs say to the test that has started them."""

import json


def say(value):
    """Print a line of JSON."""
    # In one write: print() has two, and tools of one step say something at once.
    print(json.dumps(value) + "\n", end="", flush=True)
