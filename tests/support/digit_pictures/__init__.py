"""Pictures of digits with disturbances, and a report on how they are read."""
