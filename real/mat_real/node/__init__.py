"""The node on Linux: the machine of `mat.node` between sockets, dataplane, uplinks and the DNS.

`config` is what it is told, `daemon` drives the machines, `run` puts everything together, `status`
is what it tells.
"""
