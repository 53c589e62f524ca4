"""A study: many trainings, one for each network, engine, varied option and seed, as one command."""
