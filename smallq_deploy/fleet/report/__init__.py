"""A check of a fleet for other readers: spreadsheets, Prometheus, a browser."""
