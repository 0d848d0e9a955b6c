"""Reading weight files into tensors and inert metadata, safely; knows no network."""
