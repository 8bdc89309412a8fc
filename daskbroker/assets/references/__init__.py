"""Find the resources of the cells of events, and what to read from them."""
