"""What `mat node status` shows."""

from mat.address import format_address
from mat.node import MobileNode
from mat.peer import Peer
from mat_real.key_file import format_home


def home_snapshot(machine: MobileNode, now: float) -> dict[str, object]:
    """One home address: where it stands, and its peers. Times in seconds."""
    return {
        "home": format_home((machine.home_address, machine.prefix_length)),
        "state": machine.registration_state.name.lower(),
        "addresses": [format_address(address) for address in machine.addresses],
        "registered": [format_address(address) for address in machine.registered],
        "ims": [f"[{format_address(at.address)}]:{at.port}" for at in machine.servers],
        "held": machine.held,
        "peers": [_peer_snapshot(peer, now) for peer in machine.peers()],
    }


def _peer_snapshot(peer: Peer, now: float) -> dict[str, object]:
    mapping = peer.mapping
    mobile = mapping.mobile_addresses if mapping is not None else ()
    return {
        "home": format_address(peer.home_address),
        "state": peer.state.name.lower(),
        "mobile": [format_address(address) for address in mobile],
        "expires": round(mapping.expires - now, 1) if mapping is not None else None,
        "confirmed": [format_address(address) for address in peer.confirmed],
        "used": round(now - peer.used_at, 1),
        "held": len(peer.held_out) + len(peer.held_in),
    }
