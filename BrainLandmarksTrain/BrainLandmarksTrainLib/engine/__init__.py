"""Training one network: settings, losses, the loop, its checkpoints and its logs.

Nothing in here knows where samples come from: a sampler makes them (`batches`), rendered heads or
real scans alike.
"""
