"""A fleet cut into jobs for workers, what they found kept in a database, and summed up."""
