"""Looking at the numbers: pages, API, command line."""
