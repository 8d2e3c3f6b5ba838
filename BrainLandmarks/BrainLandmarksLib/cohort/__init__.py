"""Many scans at once: a BIDS dataset in, BIDS derivatives, one table and one page of checks out.

==================  ================================================================
`bids`              which scans a BIDS dataset has
`derivatives`       the folder of results: its names, its descriptions, what is done
`work`              one scan, from image to files; can be done again at any time
`execution`         many scans, on this machine or on a Dask cluster
`table`             one row for each scan
`report`            the page with the uncertain scans first
`viewer`            NiiVue in that page
==================  ================================================================
"""
