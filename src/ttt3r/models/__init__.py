"""Networks behind one interface: `base` states it, each other module is one family."""
