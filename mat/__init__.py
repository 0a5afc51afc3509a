"""MAT, the mobility architecture of home and mobile addresses: the protocol core.

Standard library only, no I/O, no clock, no randomness of its own. A driver (the simulator, the
Linux daemon) hands in time, messages, packets and addresses and carries out the effects that come
back. Start reading at `mat.node` and `mat.server`; docs/protocol.md is the normative text.
"""

__version__ = "0.1.0"
