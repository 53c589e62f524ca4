"""Results on disk and in memory: the journal of a session, and the table that everything after this stage reads."""
