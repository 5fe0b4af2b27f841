"""Dialects: what clients and providers speak, translated through one neutral conversation. Pure, no I/O.

``conversation`` is the neutral form. A dialect has a ``_request`` module that reads what clients say or writes what
providers hear, a ``_reader`` for the answers of providers and a ``_writer`` for those that clients get. ``translate``
is the stage that joins them.
What a dialect cannot express is refused by ``refuse`` with the field's name; docs/gateway.md lists what is left out.
"""
