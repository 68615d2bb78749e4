"""Building blocks of HTML reports, and the report of a model."""
