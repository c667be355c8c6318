"""Tables of papers: each row is trained for the same budget, measured, and compared with the paper's numbers."""
