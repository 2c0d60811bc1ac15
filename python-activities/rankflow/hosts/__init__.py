"""What is looked at on a host before a Ray node is started there.

``fingerprint`` and ``reach`` are piped to the Python of a host whose environment may be missing or
broken: the standard library only, Python 3.8 or newer, nothing of this package. ``store_trip``
needs the environment: it goes through the store that engines use.
"""
