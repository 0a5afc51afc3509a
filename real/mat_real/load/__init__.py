"""The load test of an IMS: `mat ims load` (docs/load.md).

Start reading at `generator`, which carries the idea. Everything here needs numpy, so nothing is
imported before it is used.
"""
