"""Several systems, or towers of HESCAPE, under one protocol: trained, judged and put in a table."""
