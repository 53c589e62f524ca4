"""Duels: configurations measured against each other in alternating processes on one machine, so that drift hits all alike."""
