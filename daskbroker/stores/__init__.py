"""Stores of documents. :mod:`.contract` defines their interface."""
