"""Where headers and events are stored; every source implements the contracts of ``base``."""
