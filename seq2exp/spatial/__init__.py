"""Expression in space from tissue images: cohorts, systems, one protocol."""
