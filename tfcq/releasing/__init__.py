"""Trained models as files for others: packed (`packing`), and fetched from a folder, a file or an address (`fetching`)."""
