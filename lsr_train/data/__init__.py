"""Reads data sets from folders, videos and Toytown, and makes batches of them."""
