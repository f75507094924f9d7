"""Programs: ELF files, scripts, and the first stack."""
