"""A process of the same user on the host, for a broken-in sentry to find. It says the address of
`OWN` in its memory, and ends with its standard input."""

import ctypes
import sys

NAME = b"the-neighbour"
OWN = b"a neighbour's own"


def main() -> None:
    PR_SET_NAME = 15
    ctypes.CDLL(None).prctl(PR_SET_NAME, NAME, 0, 0, 0)
    own = ctypes.create_string_buffer(OWN)
    print(ctypes.addressof(own), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
