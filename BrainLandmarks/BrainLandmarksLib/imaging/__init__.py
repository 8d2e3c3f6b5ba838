"""Images in memory: resampling, intensities, edges, survey scans."""
