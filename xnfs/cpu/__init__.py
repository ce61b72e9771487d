"""Environments, time slices, exceptions: how programs run on the machine (`xnfs/machine.py`)."""
