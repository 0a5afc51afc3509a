"""The Linux driver of the MAT core: the mapping server (IMS), its store, its tools, the DNS.

Nothing is imported here, so that the command line stays light. Start reading at `mat_real.ims`.
"""
