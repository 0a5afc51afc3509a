"""Commands to nftables, by its library."""

from typing import Final, final

from mat_real.dataplane import DataplaneError

_FORBIDDEN: Final = "Operation not permitted"


@final
class Nft:
    """nftables, in the network namespace that this was made in."""

    __slots__ = ("_library",)

    def __init__(self) -> None:
        """Raises `DataplaneError` when the library is not there."""
        try:
            import nftables

            self._library = nftables.Nftables()
        except (ImportError, OSError) as error:
            what = f"nftables cannot be used ({error})"
            mend = "install libnftables1 (of nftables), and pip-nftables (pip install '.[real]')"
            raise DataplaneError(f"{what}: {mend}") from error

    def run(self, commands: str) -> None:
        """Do all of these, or none. Raises `DataplaneError`."""
        code, _, errors = self._library.cmd(commands)
        if code:
            raise _refused(errors.strip().splitlines(), commands)


def _refused(errors: list[str], commands: str) -> DataplaneError:
    said = next((line for line in errors if "rror" in line), f"error in {commands[:60]!r}")
    what = f"the kernel's nftables refused ({said})"
    if _FORBIDDEN in said:
        return DataplaneError(f"{what}: that takes root, or CAP_NET_ADMIN")
    mend = "it takes a kernel with NF_TABLES, NFT_SOCKET and NFT_FIB"
    return DataplaneError(f"{what}: {mend}; what stands is shown by `nft list ruleset`")
