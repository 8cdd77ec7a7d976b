"""What must outlive the process: atomic counters with reserve and settle, and records with a time to live."""

from rtpipe.api.store import OverLimit, Reservation, StoreError, UnknownReservation
from rtpipe.store.store import Namespace, Store
from rtpipe.store.tables import MAX_NAME_BYTES, MAX_VALUE_BYTES

__all__ = [
    "MAX_NAME_BYTES",
    "MAX_VALUE_BYTES",
    "Namespace",
    "OverLimit",
    "Reservation",
    "Store",
    "StoreError",
    "UnknownReservation",
]
