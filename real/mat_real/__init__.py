"""The Linux driver of the MAT core: dataplane, addresses, DNS, IMS server, namespace lab.

A placeholder: the package is part of the layout, the driver is not written yet.
"""
