"""What hosts have, compared: the matrix, saved checks, and their outputs."""
