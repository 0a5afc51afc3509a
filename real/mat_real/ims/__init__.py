"""The IMS as a server: configuration, supervisor, workers, metrics.

A supervisor (`supervisor`) binds the sockets and starts the workers (`worker`), each of which
drives one machine of `mat.server` between its sockets, the store and the DNS, on uvloop. Start with
`worker`; `config` is what an operator writes.
"""
