"""Other libraries that keep the conversations of agents, where they are installed.

None of them has our contract: none upserts a message in its place, and what a call stores differs.
Each module says what stands in for what. They are there to show scale, not to be beaten.
"""

from __future__ import annotations

from benchmarks.peers.peer import ASYNC_PEERS, PEERS, Peer, PeerStore, installed_peers

__all__ = ["ASYNC_PEERS", "PEERS", "Peer", "PeerStore", "installed_peers"]
