"""What is claimed, measured: the worker beside its peers and its ceiling, in one run on one broker. See README.md."""
