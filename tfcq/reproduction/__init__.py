"""Tables of papers, row by row: trained for equal budgets, measured, and set beside the papers' numbers."""
