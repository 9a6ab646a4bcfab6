"""What is measured, how results are checked, and how a case is prepared for timing."""
