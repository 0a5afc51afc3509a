"""TSIG keys from files (RFC 8945). A secret is read from a file only: a command line is public.

A file that others than its owner can open is used all the same, other than a file with the keys of
nodes (`mat_real.key_file`): a name server includes it, mostly as another user than the file's owner
(root:bind, mode 0640), so that no one mode is right. `exposure` says what there is to say of it.
"""

import base64
import binascii
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dns.name
from dns.exception import DNSException
from dns.tsig import Key

from mat_real.dns.errors import DnsError

__all__ = ["ALGORITHMS", "Key", "exposure", "read_key", "read_secret"]

ALGORITHMS: Final = ("hmac-sha256", "hmac-sha512", "hmac-sha384", "hmac-sha224", "hmac-sha1")
"""What servers have in common; HMAC-MD5 must no longer be used (RFC 8945, section 6)."""

_TOKEN: Final = re.compile(r'/\*.*?\*/|//[^\n]*|#[^\n]*|"([^"\n]*)"|([{};]|[^\s{};"]+)', re.DOTALL)
_EXAMPLE: Final = 'key "NAME" { algorithm hmac-sha256; secret "BASE64"; };'


def read_key(path: Path) -> Key:
    """The one key in a file as tsig-keygen and ddns-confgen write it and BIND includes it.

    Raises `DnsError`, naming the file and never the secret.
    """
    tokens = [m[1] if m[1] is not None else m[2] for m in _TOKEN.finditer(_read(path))]
    words = [token for token in tokens if token is not None]
    starts = [i for i in range(len(words) - 2) if words[i] == "key" and words[i + 2] == "{"]
    if len(starts) != 1:
        raise DnsError(f"{path}: {len(starts)} keys; one is needed, as {_EXAMPLE}")
    name, body = words[starts[0] + 1], words[starts[0] + 3 :]
    fields = dict(_statements(body))
    missing = [field for field in ("algorithm", "secret") if field not in fields]
    if missing:
        raise DnsError(f"{path}: key {name} without {' and '.join(missing)}; needed: {_EXAMPLE}")
    return _make_key(path, name, fields["algorithm"], fields["secret"])


def read_secret(path: Path, name: str, algorithm: str) -> Key:
    """A key whose secret, in Base64, is all that a file holds. Raises `DnsError`."""
    return _make_key(path, name, algorithm, "".join(_read(path).split()))


def exposure(path: Path) -> str:
    """A warning of a key file that others than its owner can open; empty if they cannot."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return ""
    mend = "chmod 600 it, or use a copy with that mode if a name server has to read it"
    return f"{path}: mode {mode:04o} lets other users at the secret; {mend}"


def _statements(words: Sequence[str]) -> list[tuple[str, str]]:
    """The `FIELD VALUE ;` up to the closing brace."""
    end = words.index("}") if "}" in words else len(words)
    return [(words[i], words[i + 1]) for i in range(end - 1) if i == 0 or words[i - 1] == ";"]


def _make_key(path: Path, name: str, algorithm: str, secret: str) -> Key:
    algorithm = algorithm.lower().removesuffix(".")
    if algorithm not in ALGORITHMS:
        raise DnsError(f"{path}: algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}")
    try:
        decoded = base64.b64decode(secret, validate=True)
    except binascii.Error:
        decoded = b""
    if not decoded:
        raise DnsError(f"{path}: the secret is not Base64; tsig-keygen makes a good one")
    try:
        return Key(dns.name.from_text(name), decoded, dns.name.from_text(algorithm))
    except DNSException as error:
        raise DnsError(f"{path}: key name {name!r}: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise DnsError(f"{path}: not a key file (byte {error.start} is not ASCII)") from error
    except OSError as error:
        raise DnsError(f"{path}: {error.strerror or error}; name a readable key file") from error
