"""Commands on Grad-CAM maps: `explain`, `explain compare`, `explain sanity`."""
