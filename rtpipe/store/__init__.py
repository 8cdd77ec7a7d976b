"""What must outlive the process: atomic counters with reserve and settle, and records with a time to live."""

from rtpipe.store.errors import OverLimit, StoreError, UnknownReservation
from rtpipe.store.store import Namespace, Store
from rtpipe.store.tables import MAX_NAME_BYTES, MAX_VALUE_BYTES, Reservation

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
