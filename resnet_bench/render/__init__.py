"""Tables, figures and the page, made from what the analysis says."""
