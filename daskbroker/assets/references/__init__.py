"""From the cells of events to resources, and to what is read of them."""
