"""Commands on BIDS datasets: the options of `detect --bids`, and `report`."""
