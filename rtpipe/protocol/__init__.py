"""The Realtime dialect as data and pure functions.

Event names and field paths stand here (and in the simulated model and in plugins) and nowhere else. Nothing
in this package performs I/O, keeps state, loads trio, or imports another part of rtpipe. See README.md for
the parts.
"""
