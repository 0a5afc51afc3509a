"""How a node is connected: its mobile addresses, and the routes that follow from them.

Start with `watch`, which owns the parts; `policy` says which way packets take, `picture` which
addresses count, `dhcp_link` how an interface gets one.
"""

from mat_real.uplinks.picture import MobileAddress
from mat_real.uplinks.policy import Home
from mat_real.uplinks.watch import Uplinks, UplinksError

__all__ = ["Home", "MobileAddress", "Uplinks", "UplinksError"]
