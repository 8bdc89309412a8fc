"""Configurations: YAML files by name, and their content as one plain mapping of settings.

Settings can be written as JSON: ``{"embedded": folder}``, ``{"mongo": {"uri", "assets",
"layout"}}`` or, for other stores, ``{"uri": …}``, with ``mode`` and ``timezone`` and, if given,
``handlers`` (``{spec: "module:Class"}``), ``root_map`` and ``readable_roots``.
"""

from .configuration_files import (
    Configuration,
    find_configuration,
    list_configurations,
    read_configuration,
    search_folders,
    unreadable_files,
)
from .forms import settings_of
from .places import Settings, check_place, has_secret, place_settings, scheme_of, target_of

__all__ = [
    "Configuration",
    "Settings",
    "check_place",
    "find_configuration",
    "has_secret",
    "list_configurations",
    "place_settings",
    "read_configuration",
    "scheme_of",
    "search_folders",
    "settings_of",
    "target_of",
    "unreadable_files",
]
