"""What `tfcq.score` makes of the numbers of each image: how unusual it is among held-out images, a table, a page."""
