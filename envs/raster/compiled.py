"""How the rasteriser's loops are compiled: without the interpreter lock, kept on disk between runs.

The allowed floating-point liberties never depend on the data, so a frame is the same in every thread.
"""

from numba import njit

__all__ = ["allocating", "compiled", "inlined", "pasted"]

_FASTMATH = {"contract", "arcp", "nsz", "reassoc"}
# Inner loops own no arrays: counting references to the two dozen arrays of a scene took two thirds of a frame.
compiled = njit(nogil=True, cache=True, fastmath=_FASTMATH, _nrt=False)
inlined = njit(nogil=True, cache=True, fastmath=_FASTMATH, _nrt=False, forceinline=True)
allocating = njit(nogil=True, cache=True)
# Pasted into the caller's source: every level of calls is optimised once more, which is most of the compile time.
pasted = njit(nogil=True, inline="always")
