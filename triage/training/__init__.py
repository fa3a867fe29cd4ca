"""Training: simulated sets, localiser, slice ensembles, volume net, and the bundle made of them."""
