"""Result files and journals: their format, and how they are written, read and merged."""
