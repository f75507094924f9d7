"""The Linux ABI: numbers, flags and structure layouts, by header. Data only."""
