"""Time: the clocks and the page the vDSO reads them from."""
