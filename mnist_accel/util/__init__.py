"""Small helpers that several packages use: files, text, tolerances, integer arithmetic."""
