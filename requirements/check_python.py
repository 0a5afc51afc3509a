"""Says what this Python lacks for the project's virtual environment, and how to mend it.

Run by the Makefile with the Python in question, so it is written for an old one to understand.
"""

import sys

name = "python{}.{}".format(*sys.version_info[:2])
if sys.version_info[:2] < (3, 11):  # noqa: UP036 - this one may be older
    sys.exit(
        "This needs Python 3.11 or newer; " + sys.executable + " is " + name + ".\n"
        "Mend it with: sudo apt install python3 python3-venv   (Debian 12 or newer)\n"
        "or name another Python: make PYTHON=/path/to/python3.11 ..."
    )
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError as error:
    sys.exit(
        sys.executable + " cannot make virtual environments: " + str(error) + ".\n"
        "Mend it with: sudo apt install " + name + "-venv"
    )
