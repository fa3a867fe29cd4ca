"""How far simulated patients are from real CT: measures, published ranges, report."""
