"""What runs inside worker processes; each file is run by its path and stands alone."""
