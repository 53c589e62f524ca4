"""Duels: configurations measured against each other in alternating processes, so that drift hits all alike."""
