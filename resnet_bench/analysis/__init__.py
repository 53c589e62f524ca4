"""What results say: series, ratios with intervals, verdicts. Numbers, no layout."""
